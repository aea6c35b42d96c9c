/**
 * A table for a terminal: columns as wide as their widest cell, numbers to the right. Pure.
 */

export interface Column {
  readonly title: string;
  readonly align?: "left" | "right";
}

/** The rows below the columns' titles, without trailing blanks. */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[]): string {
  const titles = columns.map((column) => column.title);
  const widths = columns.map((_, index) =>
    Math.max(...[titles, ...rows].map((row) => Bun.stringWidth(row[index] ?? ""))),
  );
  const line = (cells: readonly string[]): string =>
    columns
      .map((column, index) => {
        const cell = cells[index] ?? "";
        const padding = " ".repeat((widths[index] ?? 0) - Bun.stringWidth(cell));
        return column.align === "right" ? padding + cell : cell + padding;
      })
      .join("  ")
      .trimEnd();
  return [line(titles), widths.map((width) => "─".repeat(width)).join("  "), ...rows.map(line)].join("\n");
}
