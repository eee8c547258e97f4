/** The verbs about the events of a source: how far the relay is behind, dead events, retry, discard, republish. */

import { readBacklog } from "../../../relay/operations/backlog.ts";
import { describeOwner } from "../../../relay/operations/owner.ts";
import { planRepublish, republish } from "../../../relay/operations/republish.ts";
import type { OperatedSource } from "../../../relay/operations/source.ts";
import {
  countUndelivered,
  discardEvent,
  type EventDetails,
  findEvent,
  listRowsMax,
  listUndelivered,
  requireUndelivered,
  retryAll,
  retryEvent,
} from "../../../relay/operations/undelivered.ts";
import { databaseNow } from "../../kit/database.ts";
import { DomainError } from "../../kit/errors.ts";
import { formatList, formatTable, printable } from "../../kit/table.ts";
import { type OpsArguments, parseTime, UsageError, type VerbUsage } from "../arguments.ts";
import {
  commandOf,
  errorLengthMax,
  type OpsContext,
  type Outcome,
  operandOf,
  readEach,
  requireNoFailures,
  requireOperandOrAll,
  sourceFlag,
  sourcesOf,
  type Verb,
  withFailures,
} from "../context.ts";
import { counted, cut, duration } from "../rendering.ts";

const progressIntervalMs = 1_000;

export const backlogVerb: Verb = {
  name: "backlog",
  flags: sourceFlag,
  synopsis: "[--source S]",
  summary: "how far the relay is behind each source",
  async run(context, args) {
    const { results, failures } = await readEach(sourcesOf(context, args), readBacklog);
    return {
      document: { sources: results.map(({ source, value }) => ({ source, ...value })), failures },
      text: withFailures(
        formatTable(
          ["source", "pending", "held", "oldest pending", "failed", "dead", "held keys", "published/s", "owner"],
          results.map(({ source, value }) => [
            source,
            value.pending,
            value.held,
            duration(value.oldestPendingAgeMs),
            value.failed,
            value.dead,
            value.heldKeys,
            value.publishedPerSecond,
            value.owner === null ? "none" : describeOwner(value.owner),
          ]),
        ),
        failures,
      ),
      complete: failures.length === 0,
    };
  },
};

export const deadVerb: Verb = {
  name: "dead",
  flags: { ...sourceFlag, failed: true },
  synopsis: "[--failed] [--source S]",
  summary: "events that the relay has given up; --failed: also those that it retries",
  async run(context, args) {
    const failed = args.has("failed");
    const { results, failures } = await readEach(sourcesOf(context, args), (source) =>
      listUndelivered(source, { withFailed: failed }),
    );
    const isCut = results.some(({ value }) => value.length > listRowsMax);
    const events = results.flatMap(({ value }) => value.slice(0, listRowsMax));
    const shown = formatTable(
      ["source", "id", "key", "type", "status", "attempts", "age", "last error"],
      events.map((event) => [
        event.source,
        event.id,
        event.key,
        event.type,
        event.status,
        event.retryCount,
        duration(event.ageMs),
        cut(event.lastError, errorLengthMax),
      ]),
    );
    const more = isCut ? `\nThere are more: only the first ${listRowsMax} of each source are shown.` : "";
    return {
      document: { events, truncated: isCut, failures },
      text: withFailures(events.length === 0 ? `No ${failed ? "failed or " : ""}dead events.` : shown + more, failures),
      complete: failures.length === 0,
    };
  },
};

export const deadShowVerb: Verb = {
  name: "dead show",
  operand: { name: "ID", required: true },
  flags: sourceFlag,
  synopsis: "ID [--source S]",
  summary: "one event with its payload, from the outbox or the archive",
  async run(context, args) {
    const { event } = await findInSources(sourcesOf(context, args), operandOf(args));
    return { document: { event }, text: describeEvent(event) };
  },
};

export const retryVerb: Verb = {
  name: "retry",
  operand: { name: "ID", required: false },
  flags: { ...sourceFlag, all: true },
  synopsis: "ID | --all [--source S]",
  summary: "sends failed or dead events again now, in order per key",
  async run(context, args) {
    requireOperandOrAll(args);
    return args.has("all") ? await retryEach(context, args) : await retryOne(context, args, operandOf(args));
  },
};

async function retryOne(context: OpsContext, args: OpsArguments<VerbUsage>, id: string): Promise<Outcome> {
  const { source, event } = await findInSources(sourcesOf(context, args), id);
  requireUndelivered(event);
  await context.confirm(`Retry ${summaryOf(event)}?`);
  const changed = await retryEvent(source, id, commandOf(context, args));
  return {
    document: { retried: 1, events: [{ source: source.name, ...changed }] },
    text: `${id} is pending again. The relay sends it with its next read.`,
  };
}

async function retryEach(context: OpsContext, args: OpsArguments<VerbUsage>): Promise<Outcome> {
  const { results, failures } = await readEach(sourcesOf(context, args), countUndelivered);
  requireNoFailures(failures);
  const withEvents = results.filter(({ value }) => value > 0);
  const total = withEvents.reduce((sum, { value }) => sum + value, 0);
  if (total === 0)
    return { document: { retried: 0, sources: {} }, text: "Nothing to retry: there are no failed or dead events." };
  const each = withEvents.map(({ source, value }) => `${source} ${value}`).join(", ");
  await context.confirm(`Retry ${counted(total, "failed or dead event")} (${each})?`);
  const retried: Record<string, number> = {};
  for (const source of sourcesOf(context, args)) {
    if (!withEvents.some((it) => it.source === source.name)) continue;
    retried[source.name] = await retryAll(source, commandOf(context, args));
  }
  const sum = Object.values(retried).reduce((a, b) => a + b, 0);
  return {
    document: { retried: sum, sources: retried },
    text: `${counted(sum, "event")} pending again. The relay sends them with its next read.`,
  };
}

export const discardVerb: Verb = {
  name: "discard",
  operand: { name: "ID", required: true },
  flags: { ...sourceFlag, reason: "TEXT" },
  required: ["reason"],
  synopsis: "ID --reason TEXT [--source S]",
  summary: "gives up a failed or dead event, so that its key goes on",
  async run(context, args) {
    const id = operandOf(args);
    const reason = args.text("reason") ?? "";
    const { source, event } = await findInSources(sourcesOf(context, args), id);
    requireUndelivered(event);
    const waiting =
      event.laterPending === 0 ? "" : ` ${counted(event.laterPending, "later event")} of its key will be sent.`;
    await context.confirm(`Discard ${summaryOf(event)} for good? No service will ever receive it.${waiting}`);
    const changed = await discardEvent(source, id, { ...commandOf(context, args), reason });
    return {
      document: { discarded: 1, events: [{ source: source.name, ...changed }] },
      text: `${id} is in the archive as DISCARDED. Later events of its key are sent.`,
    };
  },
};

export const republishVerb: Verb = {
  name: "republish",
  formerName: "replay",
  flags: { ...sourceFlag, from: "T", to: "T", key: "KEY", "dry-run": true },
  required: ["source", "from"],
  synopsis: "--source S --from T [--to T] [--key KEY] [--dry-run]",
  summary: "sends published events again; the relay pauses meanwhile",
  stopsWhenAsked: true,
  async run(context, args) {
    const from = parseTime("from", args.text("from") ?? "");
    const to = parseTime("to", args.text("to") ?? "now");
    const [source] = sourcesOf(context, args);
    if (source === undefined) throw new UsageError("republish needs --source S.");
    const now = await databaseNow(source.database);
    const requested = { from: from(now), to: to(now), key: args.text("key") };
    const plan = await planRepublish(source, requested, context.archiveRetentionMs);
    const { range, count } = plan;
    const ofKey = range.key === undefined ? "" : ` of the key ${range.key}`;
    const what = `${counted(count.events, "event")}${ofKey} that ${source.name} published from ${range.from.toISOString()} to ${range.to.toISOString()}`;
    const origin = `${count.fromOutbox} from the outbox, ${count.fromArchive} from the archive`;
    const document = { source: source.name, topic: source.topic, range, ...count };
    if (args.has("dry-run") || count.events === 0) {
      return {
        document: { ...document, sent: 0, dryRun: args.has("dry-run") },
        text:
          count.events === 0
            ? `Nothing to send: ${source.name} published no events${ofKey} in that time.`
            : `${what}: ${origin}.`,
      };
    }
    await context.confirm(
      `Send ${what} to ${source.topic} again (${origin})? The relay of ${source.name} pauses meanwhile.`,
    );
    const result = await republish(source, {
      plan,
      registry: await context.openRegistry(),
      command: commandOf(context, args),
      openProducer: context.openProducer,
      onProgress: atIntervals((sent) => context.showProgress(`${sent} of ${count.events} sent`)),
      onWait: context.showProgress,
      signal: context.signal,
    });
    const stopped = `Stopped after ${result.sent} of ${result.events} events. It is safe to run it again.`;
    return {
      document: { ...document, ...result, dryRun: false },
      text: result.complete
        ? `${counted(result.sent, "event")} sent again. The relay goes on.`
        : `${stopped} The relay goes on.`,
      complete: result.complete,
    };
  },
};

/** @throws DomainError NOT_FOUND; if a source that may have the event could not be read, the Error of that source. */
async function findInSources(
  sources: readonly OperatedSource[],
  id: string,
): Promise<{ readonly source: OperatedSource; readonly event: EventDetails }> {
  const { results, failures } = await readEach(sources, async (source) => ({
    source,
    event: await findEvent(source, id),
  }));
  for (const { value } of results) if (value.event !== undefined) return { source: value.source, event: value.event };
  requireNoFailures(failures);
  const names = sources.map(({ name }) => name).join(", ");
  throw new DomainError("NOT_FOUND", `There is no event ${id} in ${names}.`);
}

function summaryOf(event: EventDetails): string {
  const { source, type, key, id, status, retryCount, lastError } = event;
  const why = lastError === null ? "" : `: ${cut(lastError, errorLengthMax)}`;
  return printable(`${type} of ${key} (${source}, ${id}; ${status} after ${counted(retryCount, "attempt")}${why})`);
}

function describeEvent(event: EventDetails): string {
  const entries = Object.entries({
    source: event.source,
    table: event.table,
    id: event.id,
    key: event.key,
    type: event.type,
    seq: event.seq,
    status: event.status,
    age: duration(event.ageMs),
    "occurred at": event.occurredAt.toISOString(),
    "published at": event.publishedAt?.toISOString() ?? null,
    attempts: event.retryCount,
    "next attempt at": event.nextAttemptAt?.toISOString() ?? null,
    "last error": event.lastError,
    "later pending": event.laterPending,
    "archived at": event.archivedAt?.toISOString() ?? null,
    "discarded by": event.discardedBy,
    "discard reason": event.discardReason,
    headers: event.headers,
  });
  return `${formatList(entries)}\npayload:\n${printable(indented(event.payload))}`;
}

/** Indented if it is JSON, else unchanged: an event may be dead because its payload is not JSON. */
function indented(payload: string): string {
  try {
    return JSON.stringify(JSON.parse(payload), undefined, 2);
  } catch {
    return payload;
  }
}

/** Passes on at most one value per interval. */
function atIntervals(show: (value: number) => void): (value: number) => void {
  let shownMs = performance.now();
  return (value) => {
    if (performance.now() - shownMs < progressIntervalMs) return;
    shownMs = performance.now();
    show(value);
  };
}
