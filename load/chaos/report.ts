/** A chaos run as people read it. */

import { formatTable, printable } from "../../services/kit/table.ts";
import { formatAudit } from "../../services/ops/audit/report.ts";
import { cut, duration } from "../../services/ops/rendering.ts";
import type { ChaosResult, FaultRecord } from "./chaos.ts";

const witnessLengthMax = 160;
const wrongLengthMax = 2_000;

/** Faults with their witnesses, faults by kind, orders by outcome, the audit, and what is wrong. */
export function formatChaos(result: ChaosResult): string {
  const { faults, outcomes, errors } = result;
  const kinds = [...new Set(faults.map(({ kind }) => kind))].sort();
  const lines = [
    formatTable(
      ["fault", "of", "took", "order through after", "witnesses"],
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
      ["kind", "times", "with witness", "repeated", "skipped"],
      kinds.map((kind) => {
        const those = faults.filter((fault) => fault.kind === kind);
        const sum = (count: (fault: FaultRecord) => number) => those.reduce((total, fault) => total + count(fault), 0);
        return [
          kind,
          those.length,
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
        ["answered with errors only", result.unacknowledged],
        ["… and placed all the same", result.unacknowledgedPlaced],
        ["cancels taken", result.cancels],
        ["watched", result.watched],
        ["services that exited since kafkajs had given up", result.consumersStopped],
        ...Object.entries(errors).map(([code, count]) => [`answers ${code}, asked again`, count]),
      ],
    ),
  ];
  if (result.audit !== undefined) lines.push("", formatAudit(result.audit));
  lines.push("");
  for (const wrong of result.wrongs) lines.push(printable(`WRONG: ${wrong.slice(0, wrongLengthMax)}`));
  lines.push(
    result.wrongs.length === 0
      ? `${faults.length} faults, and nothing is wrong (seed ${result.seed}).`
      : `${result.wrongs.length} things are wrong (seed ${result.seed}).`,
  );
  return lines.join("\n");
}
