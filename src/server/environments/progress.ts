/** How the making of an environment is told to whoever waits for it, and how uv's words become that. Pure. */

export type EnvironmentStage = "waiting" | "interpreter" | "resolving" | "downloading" | "installing" | "ready";

export interface EnvironmentProgress {
  /** Name of the pack whose request this answers. */
  readonly pack: string;
  readonly stage: EnvironmentStage;
  /** One line for a person; uv's own words where there are any. */
  readonly message: string;
}

/** A progress report before it is told to each waiting pack under its own name. */
export type StageReport = Omit<EnvironmentProgress, "pack">;

/**
 * What a line of uv's means for the stage; the stage it was in stands for lines that say nothing about it. Loose on
 * purpose: uv's output is for people, so a reworded line may cost the right stage, never the environment.
 */
export function stageOfUvLine(line: string, before: EnvironmentStage): EnvironmentStage {
  const text = line.trim();
  if (/^Resolved\b/.test(text)) return "downloading";
  if (/^(?:Downloading|Downloaded|Building|Built|Updating|Updated|Cloning|Preparing)\b/.test(text))
    return "downloading";
  if (/^(?:Prepared|Installing|Installed)\b/.test(text) || /^[+~-] \S/.test(text)) return "installing";
  return before;
}
