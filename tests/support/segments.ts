/** Segments without memory: a maker that counts, and lanes that record what is passed on them. */
import { type Segment, Segments, type SegmentsOptions } from "../../src/server/segments.ts";
import type { DescriptorLane, Passed } from "../../src/transport/descriptor-lane.ts";
import { defaultLimits } from "../../src/transport/limits.ts";
import type { SegmentMaker } from "../../src/transport/segment-file.ts";

/** Makes files that are numbers, from 1001. */
export class FakeMaker implements SegmentMaker {
  readonly kind = "memfd";
  readonly sealed = true;
  /** Files that were made and not closed, by descriptor, with whether they are sealed. */
  readonly open = new Map<number, boolean>();
  /** Why the next one can't be made, or sealed. */
  failure: Error | undefined;
  #last = 1000;

  make(): number {
    this.#fail();
    this.#last += 1;
    this.open.set(this.#last, false);
    return this.#last;
  }

  seal(descriptor: number): void {
    this.#fail();
    this.open.set(descriptor, true);
  }

  #fail(): void {
    const { failure } = this;
    this.failure = undefined;
    if (failure !== undefined) throw failure;
  }

  close(descriptor: number): void {
    if (!this.open.delete(descriptor)) throw new Error(`descriptor ${descriptor} is not open`);
  }
}

/** A lane that takes what it is passed, until it is full or its peer has ended. */
export class FakeLane {
  isFull = false;
  isLeft = false;
  readonly #passed: [what: Passed, number: number, descriptor: number][] = [];

  pass(what: Passed, number: number, descriptor: number): boolean {
    const takes = !(this.isFull || this.isLeft);
    if (takes) this.#passed.push([what, number, descriptor]);
    return takes;
  }

  /** The numbers of the segments that were passed since the last look. */
  take(): number[] {
    return this.#passed.splice(0).map(([, number]) => number);
  }

  get asLane(): DescriptorLane {
    return this as unknown as DescriptorLane;
  }
}

export function newSegments(options: Pick<SegmentsOptions, "packOf" | "notify"> & Partial<SegmentsOptions>) {
  const maker = new FakeMaker();
  const segments = new Segments({
    maker,
    limits: defaultLimits,
    close: (descriptor) => maker.close(descriptor),
    ...options,
  });
  return { maker, segments };
}

/** The segment of this number, which is there. */
export function segmentOf(segments: Segments, number: number): Segment {
  const segment = segments.find(number);
  if (segment === undefined) throw new Error(`there is no segment ${number}`);
  return segment;
}
