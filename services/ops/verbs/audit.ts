/** `npm run ops -- audit`: are the promises kept? */
import { join } from "node:path";
import { Counter, Gauge, type Registry as Metrics } from "prom-client";
import { sleep } from "../../kit/backoff.ts";
import { environment } from "../../kit/config.ts";
import { messageOf } from "../../kit/errors.ts";
import { createMetrics, serveHealth } from "../../kit/health.ts";
import { type OpsArguments, UsageError, type VerbUsage } from "../arguments.ts";
import { type AuditOptions, type Auditor, type AuditReport, openAuditor } from "../audit/audit.ts";
import { formatAudit } from "../audit/report.ts";
import { readAuditSources } from "../audit/sources.ts";
import type { OpsContext, Outcome, Verb } from "../context.ts";
import { counted } from "../rendering.ts";

const root = join(import.meta.dir, "../../..");
const watchIntervalMs = 10_000;
const secondsMax = 86_400;
const portMax = 65_535;

/** Checks the promises once, or every 10 s until it is stopped; exit code 1 when one is broken. */
export const auditVerb: Verb = {
  name: "audit",
  flags: { watch: true, "overdue-after": "SECONDS", "metrics-port": "PORT" },
  synopsis: "[--watch [--metrics-port PORT]] [--overdue-after SECONDS]",
  summary: "checks the promises I1 to I7 and I9 on the running system, with what breaks them; --watch every 10 s",
  endsInOrder: true,
  async run(context, args) {
    const overdueAfter = numberOf(args, "overdue-after", secondsMax);
    const port = numberOf(args, "metrics-port", portMax);
    if (port !== undefined && !args.has("watch")) throw new UsageError("--metrics-port goes with --watch.");
    const options: AuditOptions = {
      ...(await readAuditSources(environment(), root, context.sources)),
      ...(overdueAfter === undefined ? {} : { overdueAfterMs: overdueAfter * 1_000 }),
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

function numberOf({ text }: OpsArguments<VerbUsage>, flag: string, max: number): number | undefined {
  const value = text(flag);
  if (value === undefined) return undefined;
  const number = Number(value);
  if (/^\d+$/.test(value) && number <= max) return number;
  throw new UsageError(`--${flag} takes a whole number up to ${max}, but is "${value}".`);
}

function outcomeOf(report: AuditReport): Outcome {
  return { document: { ...report }, text: formatAudit(report), complete: report.ok };
}

/** Shows every audit as it is done. What cannot be audited now is audited later. */
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
        record.found(report);
        await Bun.write(Bun.stdout, json ? `${JSON.stringify(report)}\n` : `${formatAudit(report)}\n\n`);
      } catch (error) {
        if (context.signal.aborted) break;
        record.failed();
        context.tell(`Could not be audited: ${messageOf(error)}`);
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

/** The audit as metrics. */
export function createAuditMetrics(metrics: Metrics) {
  const registers = [metrics];
  const broken = new Gauge({
    name: "audit_broken",
    help: "Findings of the last audit, by promise.",
    labelNames: ["promise"],
    registers,
  });
  const checked = new Gauge({
    name: "audit_checked",
    help: "What the last audit looked at, by promise: orders, SKUs, authorisations, records or rows.",
    labelNames: ["promise"],
    registers,
  });
  const hindered = new Gauge({ name: "audit_hindered_orders", help: "Orders that wait for an operator.", registers });
  const unsettled = new Gauge({
    name: "audit_unsettled_orders",
    help: "Orders that looked wrong and changed at every reading of the last audit.",
    registers,
  });
  const finishedAt = new Gauge({
    name: "audit_last_finished_timestamp_seconds",
    help: "When the last audit was done: what is older says nothing about now.",
    registers,
  });
  const took = new Gauge({ name: "audit_seconds", help: "How long the last audit took.", registers });
  const failures = new Counter({ name: "audit_failures_total", help: "Audits that could not be done.", registers });
  return {
    found(report: AuditReport) {
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
