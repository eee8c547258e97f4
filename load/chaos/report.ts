/** Renders a chaos run as text. */
import { formatTable, printable } from "../../services/kit/table.ts";
import { formatAudit } from "../../services/ops/audit/report.ts";
import { cut, duration } from "../../services/ops/rendering.ts";
import type { ChaosResult, FaultRecord } from "./chaos.ts";

const witnessLengthMax = 160;
const problemLengthMax = 2_000;

/** Faults with their witnesses, faults by kind, orders by outcome, the audit, and the problems. */
export function formatChaos(result: ChaosResult): string {
  const { faults, outcomes, errors } = result;
  const kinds = [...new Set(faults.map(({ kind }) => kind))].sort();
  const lines = [
    formatTable(
      ["fault", "target", "took", "next order final after", "witnesses"],
      faults.map((fault) => [
        fault.kind,
        fault.target,
        duration(fault.tookMs),
        duration(fault.recoveredMs),
        cut(fault.skipped === undefined ? fault.witnesses.join("; ") : `skipped: ${fault.skipped}`, witnessLengthMax),
      ]),
    ),
    "",
    formatTable(
      ["kind", "injected", "with witness", "repeated", "skipped"],
      kinds.map((kind) => {
        const ofKind = faults.filter((fault) => fault.kind === kind);
        const sum = (count: (fault: FaultRecord) => number) => ofKind.reduce((total, fault) => total + count(fault), 0);
        return [
          kind,
          ofKind.length,
          sum(({ witnesses }) => Number(witnesses.length > 0)),
          sum(({ misses }) => misses.length),
          sum(({ skipped }) => Number(skipped !== undefined)),
        ];
      }),
    ),
    "",
    formatTable(
      ["orders", ""],
      [
        ["acknowledged", result.acknowledged],
        ...Object.entries(outcomes),
        ["requests that got errors only", result.unacknowledged],
        ["… of these, orders placed nevertheless", result.unacknowledgedPlaced],
        ["cancels accepted", result.cancels],
        ["watched", result.watched],
        ["exits of services whose Kafka client had stopped", result.consumerExits],
        ...Object.entries(errors).map(([code, count]) => [`${code} answers, retried`, count]),
      ],
    ),
  ];
  lines.push("", formatAudit(result.audit), "");
  for (const problem of result.problems) lines.push(printable(`PROBLEM: ${problem.slice(0, problemLengthMax)}`));
  lines.push(`${faults.length} faults, ${result.problems.length || "no"} problems (seed ${result.seed}).`);
  return lines.join("\n");
}
