/** The result of an audit, and how people read it. */
import { formatTable, printable } from "../../kit/table.ts";
import { counted, cut, duration } from "../rendering.ts";
import type { Finding } from "./promises/order-check.ts";
import type { PromiseId } from "./promises/promises.ts";

/** The result for one promise. */
export interface PromiseReport {
  readonly promise: PromiseId;
  readonly title: string;
  /** How many `unit`s were checked. */
  readonly checked: number;
  readonly unit: string;
  /** The number of findings; `findings` has the first of them. */
  readonly broken: number;
  readonly findings: readonly Finding[];
}

/** The result of an audit. Lists have the first entries; the counts beside them are complete. */
export interface AuditReport {
  /** Whether every promise is kept. */
  readonly ok: boolean;
  readonly startedAt: string;
  readonly tookMs: number;
  readonly promises: readonly PromiseReport[];
  /** Orders that wait for an operator, and why. That breaks no promise. */
  readonly hindered: readonly { readonly orderId: string; readonly why: string }[];
  readonly hinderedCount: number;
  /** Orders that looked wrong but changed at every reading, so nothing is known about them. */
  readonly unsettled: readonly string[];
  readonly unsettledCount: number;
  /** How many orders looked wrong at first. */
  readonly suspects: number;
  readonly records: number;
  readonly duplicateRecords: number;
}

const evidenceLengthMax = 1_200;

/** A table of all promises, and below it each finding with the rows that show it. */
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
    lines.push(`${orders} looked wrong but kept changing. Audit again: ${report.unsettled.join(", ")}`);
  }
  lines.push(
    `${report.ok ? "Every promise is kept." : "Not every promise is kept."} ` +
      `${counted(report.records, "record")} read (${counted(report.duplicateRecords, "duplicate")}), ` +
      `${counted(report.suspects, "order")} read again, ${duration(report.tookMs)}.`,
  );
  return lines.join("\n");
}
