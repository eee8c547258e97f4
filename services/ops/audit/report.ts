/** An audit as people read it. */
import { formatTable, printable } from "../../kit/table.ts";
import { counted, cut, duration } from "../rendering.ts";
import type { AuditReport } from "./audit.ts";

const evidenceLengthMax = 1_200;

/** A table of all promises; below it what breaks them, with the rows that show it. */
export function formatAudit(report: AuditReport): string {
  const lines = [
    formatTable(
      ["promise", "", "checked", "", "result"],
      report.promises.map(({ promise, title, checked, unit, broken }) => [
        promise,
        title,
        checked,
        unit,
        broken === 0 ? "ok" : `BROKEN: ${broken}`,
      ]),
    ),
    "",
  ];
  for (const { promise, broken, findings } of report.promises) {
    for (const { subject, what, rows } of findings) {
      lines.push(printable(`${promise}  ${subject}: ${what}`));
      for (const [name, row] of Object.entries(rows)) {
        lines.push(printable(`      ${name}: ${cut(JSON.stringify(row) ?? "none", evidenceLengthMax)}`));
      }
    }
    if (broken > findings.length) lines.push(`${promise}  … and ${broken - findings.length} more`);
  }
  for (const { orderId, why } of report.hindered) lines.push(printable(`waits for an operator: ${orderId}, ${why}`));
  const more = report.hinderedCount - report.hindered.length;
  if (more > 0) lines.push(`… and ${more} more wait for an operator`);
  if (report.unsettledCount > 0) {
    const orders = counted(report.unsettledCount, "order");
    lines.push(`${orders} looked wrong and would not stand still; audit again: ${report.unsettled.join(", ")}`);
  }
  lines.push(
    `${report.ok ? "Every promise is kept." : "Not every promise is kept."} ` +
      `${counted(report.records, "record")} (${counted(report.duplicateRecords, "duplicate")}), ` +
      `${counted(report.suspects, "order")} read again, ${duration(report.tookMs)}.`,
  );
  return lines.join("\n");
}
