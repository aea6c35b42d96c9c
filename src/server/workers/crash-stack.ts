/**
 * The report that faulthandler writes of a crash, as an error tells it: the reason, then the thread that crashed, then
 * the others as far as there is room. Pure.
 */

/** What an error may carry of it. */
const charsMax = 16 * 1024;

/** The report with the thread that crashed before all others, cut to a length. */
export function crashStack(report: string): string {
  const parts = report.trim().split(/\n{2,}/);
  const isCurrent = (part: string): boolean => part.startsWith("Current thread");
  const isThread = (part: string): boolean => part.startsWith("Thread 0x");
  const ordered = [
    ...parts.filter((part) => !isCurrent(part) && !isThread(part)).slice(0, 1),
    ...parts.filter(isCurrent),
    ...parts.filter(isThread),
  ];
  const text = ordered.join("\n\n");
  return text.length <= charsMax ? text : `${text.slice(0, charsMax)}\n…`;
}
