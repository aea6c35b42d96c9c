/**
 * What the server does when it is called itself (peer 0): open, prepare and close packs, and tell how things are.
 *
 * The only part of the server that decodes a body from a peer, after validating all of it.
 */
import { isAbsolute } from "node:path";
import { decode } from "../transport/codec.ts";
import {
  type ControlMethod,
  callBodySchema,
  controlParameters,
  type OpenResult,
  type PrepareResult,
  type Progress,
  type Status,
  validate,
} from "../transport/control.ts";
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import type { Call } from "./call-table.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { Pack } from "./pack.ts";
import type { Session } from "./session.ts";

export interface ControlServices {
  readonly packsPerHostMax: number;
  loadManifest(folder: string): Promise<PackManifest>;
  newPack(host: Session, manifest: PackManifest): Pack;
  status(): Status;
  answer(call: Call, value: unknown): void;
  fail(call: Call, error: AirlockError): void;
  progress(call: Call, progress: Progress): void;
}

export class ControlService {
  readonly #services: ControlServices;

  constructor(services: ControlServices) {
    this.#services = services;
  }

  /** Carries out one call and answers it, with a value or an error. */
  handle(call: Call, body: Uint8Array): void {
    this.#perform(call, body.slice()).then(
      (value) => this.#services.answer(call, value),
      (error) => this.#services.fail(call, toAirlockError(error)),
    );
  }

  async #perform(call: Call, body: Uint8Array): Promise<unknown> {
    const host = call.caller;
    if (host.hello.role !== "host") throw new AirlockError("unauthorized", "a worker may not call the server");
    const [method, , keywords] = validate(callBodySchema, decode(body), "call");
    if (!isControlMethod(method)) {
      const known = Object.keys(controlParameters).join(", ");
      throw new AirlockError("bad_request", `the server has no method ${JSON.stringify(method)}; it has ${known}`);
    }
    switch (method) {
      case "open":
        return await this.#open(call, validate(controlParameters.open, keywords, method).folder);
      case "prepare":
        return await this.#prepare(call, validate(controlParameters.prepare, keywords, method).pack);
      case "close":
        return this.#close(host, validate(controlParameters.close, keywords, method).pack);
      case "status":
        validate(controlParameters.status, keywords, method);
        return this.#services.status();
    }
  }

  /** Opening a folder twice gives the same pack: its calls share one worker. */
  async #open(call: Call, folder: string): Promise<OpenResult> {
    if (!isAbsolute(folder)) throw new AirlockError("bad_request", `the folder ${folder} is not an absolute path`);
    const manifest = await this.#services.loadManifest(folder);
    // The host may have gone meanwhile: a pack that is opened now would never be closed.
    if (call.abandoned) throw new AirlockError("cancelled", "the call was cancelled");
    const host = call.caller;
    const opened = [...host.packs.values()].find((pack) => pack.manifest.folder === manifest.folder);
    const pack = opened ?? this.#newPack(host, manifest);
    return { pack: pack.peer, name: manifest.name, folder: manifest.folder, warnings: [...manifest.warnings] };
  }

  #newPack(host: Session, manifest: PackManifest): Pack {
    const { packsPerHostMax } = this.#services;
    if (host.packs.size >= packsPerHostMax) {
      throw new AirlockError("limit_exceeded", `this host has ${packsPerHostMax} packs open, as many as are allowed`);
    }
    const pack = this.#services.newPack(host, manifest);
    host.packs.set(pack.peer, pack);
    return pack;
  }

  async #prepare(call: Call, peer: number): Promise<PrepareResult> {
    const environment = await packOf(call.caller, peer).prepare((progress) => this.#services.progress(call, progress));
    return { python: environment.python, python_version: environment.pythonVersion, fresh: environment.fresh };
  }

  #close(host: Session, peer: number): null {
    const pack = packOf(host, peer);
    host.packs.delete(peer);
    pack.close();
    return null;
  }
}

function isControlMethod(method: string): method is ControlMethod {
  return Object.hasOwn(controlParameters, method);
}

function packOf(host: Session, peer: number): Pack {
  const pack = host.packs.get(peer);
  if (pack === undefined) throw new AirlockError("pack_not_open", `peer ${peer} is no pack of this host`);
  return pack;
}
