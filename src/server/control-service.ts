/**
 * What the server does when it is called itself (peer 0): open, prepare and close packs, end a worker that
 * does not answer, tell how things are, have a worker print its stacks, and make segments, which workers may ask for too.
 *
 * The only part of the server that decodes a body from a peer, after validating all of it.
 */
import { isAbsolute } from "node:path";
import { decode } from "../transport/codec.ts";
import {
  type ControlMethod,
  callBodySchema,
  controlParameters,
  type MemoryReport,
  type NurseryResult,
  type OpenParameters,
  type OpenResult,
  type PrepareResult,
  type Progress,
  type SegmentResult,
  type StackResult,
  type Status,
  validate,
  workersMethods,
} from "../transport/control.ts";
import { AirlockError, toAirlockError } from "../transport/errors.ts";
import type { PackManifest } from "./environments/manifest.ts";
import type { PackTable } from "./pack-table.ts";
import type { Segments } from "./segments.ts";
import type { Call, Session } from "./session.ts";
import { stoppingError } from "./slot-errors.ts";

export interface ControlServices {
  readonly segments: Pick<Segments, "make" | "seal" | "share" | "drop">;
  readonly packs: Pick<PackTable, "open" | "get" | "packOf" | "named" | "close" | "findWorker">;
  /** Asks hosts and workers how they are, for the next status. */
  look(): Promise<void>;
  /** Where the library is by which torch makes tensors in shared memory. */
  nursery(): Promise<string | undefined>;
  /** A host says what it shares. */
  memoryTold(host: Session, report: MemoryReport | null): void;
  /** @param given what stands in place of a file. */
  loadManifest(folder: string, given: Record<string, unknown> | undefined): Promise<PackManifest>;
  status(): Status;
  /** Stops the server. */
  stop(drainMs: number | undefined): void;
  /** Whether it stops: nothing is begun any more. */
  isStopping(): boolean;
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
    const [method, , keywords] = validate(callBodySchema, decode(body), "call");
    if (host.hello.role !== "host" && !mayWorkersCall(method)) {
      const those = [...workersMethods].join(", ");
      throw new AirlockError("unauthorized", `a worker may not call the server but for its memory: ${those}`);
    }
    if (!isControlMethod(method)) {
      const known = Object.keys(controlParameters).join(", ");
      throw new AirlockError("bad_request", `the server has no method ${JSON.stringify(method)}; it has ${known}`);
    }
    if (beginnings.has(method) && this.#services.isStopping()) throw stoppingError();
    switch (method) {
      case "open":
        return await this.#open(call, validate(controlParameters.open, keywords, method));
      case "prepare":
        return await this.#prepare(call, validate(controlParameters.prepare, keywords, method).pack);
      case "close":
        return await this.#close(host, validate(controlParameters.close, keywords, method).pack);
      case "ending":
        return await this.#ending(host, validate(controlParameters.ending, keywords, method));
      case "overdue":
        return this.#overdue(host, validate(controlParameters.overdue, keywords, method));
      case "left_line":
        return this.#leftLine(host, validate(controlParameters.left_line, keywords, method));
      case "retire":
        return await this.#retire(host, validate(controlParameters.retire, keywords, method).pack);
      case "status":
        validate(controlParameters.status, keywords, method);
        return this.#services.status();
      case "stats":
        validate(controlParameters.stats, keywords, method);
        await this.#services.look();
        return this.#services.status();
      case "memory":
        this.#services.memoryTold(host, validate(controlParameters.memory, keywords, method).report);
        return null;
      case "restart":
        return await this.#restart(validate(controlParameters.restart, keywords, method).name);
      case "stop":
        this.#services.stop(validate(controlParameters.stop, keywords, method).drain_ms);
        return null;
      case "stack":
        return await this.#stack(validate(controlParameters.stack, keywords, method).pid);
      case "nursery":
        validate(controlParameters.nursery, keywords, method);
        return { path: (await this.#services.nursery()) ?? null } satisfies NurseryResult;
      case "make_segment":
        return this.#makeSegment(host, validate(controlParameters.make_segment, keywords, method));
      case "seal_segment":
        return this.#sealSegment(host, validate(controlParameters.seal_segment, keywords, method).segment);
      case "share_segment":
        return this.#shareSegment(host, validate(controlParameters.share_segment, keywords, method));
      case "drop_segment":
        return this.#dropSegment(host, validate(controlParameters.drop_segment, keywords, method).segment);
    }
  }

  async #open(call: Call, { folder, manifest: given, entry }: OpenParameters): Promise<OpenResult> {
    if (!isAbsolute(folder)) throw new AirlockError("bad_request", `the folder ${folder} is not an absolute path`);
    const manifest = { ...(await this.#services.loadManifest(folder, given)), ...(entry && { entry }) };
    // The host may have gone meanwhile: a pack that is opened now would never be closed.
    if (call.abandoned) throw new AirlockError("cancelled", "the call was cancelled");
    const pack = this.#services.packs.open(call.caller, manifest);
    const { callTimeout } = pack;
    return {
      pack: pack.peer,
      workers: pack.peers,
      audience: pack.audience,
      fresh_process: manifest.freshProcess,
      nodes: { ...pack.nodes },
      name: manifest.name,
      folder: manifest.folder,
      warnings: [...pack.warnings],
      ...(callTimeout && { call_timeout: callTimeout }),
    };
  }

  async #prepare(call: Call, peer: number): Promise<PrepareResult> {
    const pack = this.#services.packs.packOf(call.caller, peer);
    const environment = await pack.prepare((progress) => this.#services.progress(call, progress));
    return { python: environment.python, python_version: environment.pythonVersion, fresh: environment.fresh };
  }

  /** Throws what ended the worker on a line; a host asks when it finds the line at its end. */
  async #ending(host: Session, { pack, line }: { pack: number; line: number }): Promise<never> {
    throw await this.#services.packs.get(host, pack).lines.ending(line);
  }

  /** Ends a worker that does not answer on a line, where the host alone knows of its calls. */
  #overdue(host: Session, { pack, line }: { pack: number; line: number }): null {
    this.#services.packs.get(host, pack).lines.endOverdue(line);
    return null;
  }

  #leftLine(host: Session, { pack, line }: { pack: number; line: number }): null {
    this.#services.packs.get(host, pack).lines.left(line);
    return null;
  }

  async #retire(host: Session, peer: number): Promise<null> {
    await this.#services.packs.get(host, peer).retire();
    return null;
  }

  /** Restarts all packs of a name, whichever host has them open: it is for people, who know packs by their names. */
  async #restart(name: string): Promise<{ packs: number }> {
    const packs = this.#services.packs.named(name);
    if (packs.length === 0) {
      const hint = "airlock ps lists the packs that are open";
      throw new AirlockError("pack_not_open", `no host has a pack ${JSON.stringify(name)} open`, { pack: name, hint });
    }
    await Promise.all(packs.map((pack) => pack.restart()));
    return { packs: packs.length };
  }

  /** Any host may ask of any worker: it is for a person with a terminal, who has another connection than the pack's host. */
  async #stack(pid: number): Promise<StackResult> {
    const found = this.#services.packs.findWorker(pid);
    if (found === undefined)
      throw new AirlockError("bad_request", `no worker of this server has the process id ${pid}`);
    return { pack: found.pack.name, pid, stack: await found.worker.dumpStacks() };
  }

  #makeSegment(owner: Session, { bytes, audience }: { bytes: number; audience?: number | undefined }): SegmentResult {
    return { segment: this.#services.segments.make(owner, bytes, audience) };
  }

  #sealSegment(owner: Session, segment: number): null {
    this.#services.segments.seal(owner, segment);
    return null;
  }

  #shareSegment(from: Session, { segment, peer }: { segment: number; peer: number }): null {
    this.#services.segments.share(from, segment, peer);
    return null;
  }

  #dropSegment(from: Session, segment: number): null {
    this.#services.segments.drop(from, segment);
    return null;
  }

  /** Answers when its last worker is gone: whoever closes a pack wants its memory. */
  async #close(host: Session, peer: number): Promise<null> {
    const { packs } = this.#services;
    const pack = packs.packOf(host, peer);
    packs.close(pack);
    await pack.ended;
    return null;
  }
}

/** Methods by which something begins that a server which stops would only have to end. */
const beginnings: ReadonlySet<ControlMethod> = new Set(["open", "prepare", "restart"]);

function isControlMethod(method: string): method is ControlMethod {
  return Object.hasOwn(controlParameters, method);
}

function mayWorkersCall(method: string): boolean {
  return isControlMethod(method) && workersMethods.has(method);
}
