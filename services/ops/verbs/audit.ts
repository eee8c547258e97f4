/** `npm run ops -- audit`: checks that the running system keeps its promises. */
import { join } from "node:path";
import { Counter, Gauge, type Registry as Metrics } from "prom-client";
import { sleep } from "../../kit/backoff.ts";
import { environment } from "../../kit/config.ts";
import { messageOf } from "../../kit/errors.ts";
import { createMetrics, serveHealth } from "../../kit/health.ts";
import { parseWholeNumber, UsageError } from "../arguments.ts";
import { type AuditOptions, type Auditor, openAuditor } from "../audit/audit.ts";
import { type AuditReport, formatAudit } from "../audit/report.ts";
import { readAuditSources } from "../audit/sources.ts";
import type { OpsContext, Outcome, Verb } from "../context.ts";
import { counted } from "../rendering.ts";

const root = join(import.meta.dir, "../../..");
const watchIntervalMs = 10_000;
const overdueSecondsMax = 86_400;
const portMax = 65_535;

/** Exit code 1 if a promise is broken. */
export const auditVerb: Verb = {
  name: "audit",
  flags: { watch: true, "overdue-after": "SECONDS", "metrics-port": "PORT" },
  synopsis: "[--watch [--metrics-port PORT]] [--overdue-after SECONDS]",
  summary: "checks the promises on the running system; --watch: every 10 s",
  stopsWhenAsked: true,
  async run(context, args) {
    const numberOf = (flag: string, max: number) => {
      const text = args.text(flag);
      return text === undefined ? undefined : parseWholeNumber(flag, text, max);
    };
    const overdueAfterSeconds = numberOf("overdue-after", overdueSecondsMax);
    const port = numberOf("metrics-port", portMax);
    if (port !== undefined && !args.has("watch")) throw new UsageError("--metrics-port needs --watch.");
    const options: AuditOptions = {
      ...(await readAuditSources(environment(), root, context.sources)),
      ...(overdueAfterSeconds === undefined ? {} : { overdueAfterMs: overdueAfterSeconds * 1_000 }),
      signal: context.signal,
    };
    if (args.has("watch")) return await watch(context, options, { json: args.has("json"), port });
    const auditor = await openAuditor(options);
    try {
      return outcomeOf(await auditor.run());
    } finally {
      await auditor.close();
    }
  },
};

function outcomeOf(report: AuditReport): Outcome {
  return { document: { ...report }, text: formatAudit(report), complete: report.ok };
}

/** Prints each audit when it is finished. An audit that fails is counted, and the next one starts as usual. */
async function watch(
  context: OpsContext,
  options: AuditOptions,
  { json, port }: { readonly json: boolean; readonly port: number | undefined },
): Promise<Outcome> {
  const metrics = createMetrics("audit");
  const record = createAuditMetrics(metrics);
  const server = port === undefined ? undefined : serveHealth({ host: "127.0.0.1", port, checks: {}, metrics });
  let auditor: Auditor | undefined;
  let audits = 0;
  let ok = true;
  try {
    while (!context.signal.aborted) {
      try {
        auditor ??= await openAuditor(options);
        const report = await auditor.run();
        audits++;
        ok = report.ok;
        record.finished(report);
        await Bun.write(Bun.stdout, json ? `${JSON.stringify(report)}\n` : `${formatAudit(report)}\n\n`);
      } catch (error) {
        if (context.signal.aborted) break;
        record.failed();
        context.showProgress(`The audit failed: ${messageOf(error)}`);
        await auditor?.close().catch(() => undefined);
        auditor = undefined;
      }
      await sleep(watchIntervalMs, context.signal);
    }
  } finally {
    await auditor?.close().catch(() => undefined);
    await server?.close();
  }
  return { document: { audits, ok }, text: `Stopped after ${counted(audits, "audit")}.`, complete: ok };
}

/** The metrics of `audit --watch`. */
function createAuditMetrics(metrics: Metrics) {
  const registers = [metrics];
  const broken = new Gauge({
    name: "audit_broken",
    help: "Findings in the last audit, by promise.",
    labelNames: ["promise"],
    registers,
  });
  const checked = new Gauge({
    name: "audit_checked",
    help: "Orders, SKUs, authorisations, records or rows that the last audit checked, by promise.",
    labelNames: ["promise"],
    registers,
  });
  const hindered = new Gauge({
    name: "audit_hindered_orders",
    help: "Orders that wait for an operator in the last audit.",
    registers,
  });
  const unsettled = new Gauge({
    name: "audit_unsettled_orders",
    help: "Orders that looked wrong but changed at every reading of the last audit.",
    registers,
  });
  const finishedAt = new Gauge({
    name: "audit_last_finished_timestamp_seconds",
    help: "When the last audit finished. If this is old, the other figures are old too.",
    registers,
  });
  const took = new Gauge({ name: "audit_seconds", help: "Duration of the last audit.", registers });
  const failures = new Counter({
    name: "audit_failures_total",
    help: "Audits that failed because a source could not be read.",
    registers,
  });
  return {
    finished(report: AuditReport) {
      for (const { promise, ...counts } of report.promises) {
        broken.set({ promise }, counts.broken);
        checked.set({ promise }, counts.checked);
      }
      hindered.set(report.hinderedCount);
      unsettled.set(report.unsettledCount);
      finishedAt.setToCurrentTime();
      took.set(report.tookMs / 1_000);
    },
    failed: () => failures.inc(),
  };
}
