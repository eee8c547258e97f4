/** The verbs about a source's events: what each asks before it changes something, and how its result is shown. */

import type { OperatedSource } from "../../../relay/operations/audit-log.ts";
import { planReplay, replay } from "../../../relay/operations/republish.ts";
import {
  countUndelivered,
  databaseNow,
  describeOwner,
  discardEvent,
  type EventDetails,
  findEvent,
  listRowsMax,
  listUndelivered,
  readBacklog,
  requireUndelivered,
  retryAll,
  retryEvent,
} from "../../../relay/operations/undelivered.ts";
import { DomainError } from "../../kit/errors.ts";
import { formatList, formatTable, printable } from "../../kit/table.ts";
import { type OpsArguments, parseTime, UsageError, type VerbUsage } from "../arguments.ts";
import {
  commandOf,
  errorLengthMax,
  lookAtEach,
  type OpsContext,
  type Outcome,
  operandOf,
  requireNoFaults,
  requireOneOf,
  sourceFlag,
  sourcesOf,
  type Verb,
  withFaults,
} from "../context.ts";
import { counted, cut, duration } from "../rendering.ts";

const progressIntervalMs = 1_000;

/** How far each source is behind. */
export const backlog: Verb = {
  name: "backlog",
  flags: sourceFlag,
  synopsis: "[--source S]",
  summary: "how far each source is behind, and who relays it",
  async run(context, args) {
    const { found, faults } = await lookAtEach(sourcesOf(context, args), readBacklog);
    return {
      document: { sources: found.map(({ source, value }) => ({ source, ...value })), faults },
      text: withFaults(
        formatTable(
          ["source", "pending", "held", "oldest pending", "failed", "dead", "held keys", "published/s", "owner"],
          found.map(({ source, value }) => [
            source,
            value.pending,
            value.held,
            duration(value.oldestPendingAgeMs),
            value.failed,
            value.dead,
            value.heldKeys,
            value.publishedPerSecond,
            value.owner === null ? "nobody" : describeOwner(value.owner),
          ]),
        ),
        faults,
      ),
      complete: faults.length === 0,
    };
  },
};

/** What was given up. */
export const dead: Verb = {
  name: "dead",
  flags: { ...sourceFlag, failed: true },
  synopsis: "[--failed] [--source S]",
  summary: "the events that were given up; with --failed also those tried again later",
  async run(context, args) {
    const failed = args.has("failed");
    const { found, faults } = await lookAtEach(sourcesOf(context, args), (source) =>
      listUndelivered(source, { failed }),
    );
    const isCut = found.some(({ value }) => value.length > listRowsMax);
    const events = found.flatMap(({ value }) => value.slice(0, listRowsMax));
    const shown = formatTable(
      ["source", "id", "key", "type", "status", "retries", "age", "last error"],
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
    const more = isCut ? `\nThere are more: the first ${listRowsMax} of a source are shown.` : "";
    return {
      document: { events, truncated: isCut, faults },
      text: withFaults(events.length === 0 ? `No ${failed ? "failed or " : ""}dead events.` : shown + more, faults),
      complete: faults.length === 0,
    };
  },
};

/** All of one event. */
export const deadShow: Verb = {
  name: "dead show",
  operand: { name: "ID", required: true },
  flags: sourceFlag,
  synopsis: "ID [--source S]",
  summary: "all that is known of an event, with its payload; also of one that was discarded",
  async run(context, args) {
    const { event } = await findSomewhere(sourcesOf(context, args), operandOf(args));
    return { document: { event }, text: describeEvent(event) };
  },
};

/** Tries failed and dead events again. */
export const retry: Verb = {
  name: "retry",
  operand: { name: "ID", required: false },
  flags: { ...sourceFlag, all: true },
  synopsis: "ID | --all [--source S]",
  summary: "lets failed and dead events be tried again at once, in the order of their keys",
  async run(context, args) {
    requireOneOf(args, "ID");
    return args.has("all") ? await retryEach(context, args) : await retryOne(context, args, operandOf(args));
  },
};

async function retryOne(context: OpsContext, args: OpsArguments<VerbUsage>, id: string): Promise<Outcome> {
  const { source, event } = await findSomewhere(sourcesOf(context, args), id);
  requireUndelivered(event);
  await context.confirm(`Retry ${inALine(event)}?`);
  const changed = await retryEvent(source, id, commandOf(context, args));
  return {
    document: { retried: 1, events: [{ source: source.name, ...changed }] },
    text: `${id} is pending again: the relay sends it at its next look.`,
  };
}

async function retryEach(context: OpsContext, args: OpsArguments<VerbUsage>): Promise<Outcome> {
  const { found, faults } = await lookAtEach(sourcesOf(context, args), countUndelivered);
  requireNoFaults(faults);
  const concerned = found.filter(({ value }) => value > 0);
  const total = concerned.reduce((sum, { value }) => sum + value, 0);
  if (total === 0)
    return { document: { retried: 0, sources: {} }, text: "No failed or dead events: nothing to retry." };
  const each = concerned.map(({ source, value }) => `${source} ${value}`).join(", ");
  await context.confirm(`Retry ${counted(total, "failed or dead event")} (${each})?`);
  const retried: Record<string, number> = {};
  for (const source of sourcesOf(context, args)) {
    if (!concerned.some((it) => it.source === source.name)) continue;
    retried[source.name] = await retryAll(source, commandOf(context, args));
  }
  const sum = Object.values(retried).reduce((a, b) => a + b, 0);
  return {
    document: { retried: sum, sources: retried },
    text: `${counted(sum, "event")} pending again: the relay sends them at its next look.`,
  };
}

/** Gives one up for good. */
export const discard: Verb = {
  name: "discard",
  operand: { name: "ID", required: true },
  flags: { ...sourceFlag, reason: "TEXT" },
  required: ["reason"],
  synopsis: "ID --reason TEXT [--source S]",
  summary: "gives a failed or dead event up: into the archive, and its key goes on without it",
  async run(context, args) {
    const id = operandOf(args);
    const reason = args.text("reason") ?? "";
    const { source, event } = await findSomewhere(sourcesOf(context, args), id);
    requireUndelivered(event);
    const waiting =
      event.laterPending === 0 ? "" : ` ${counted(event.laterPending, "later event")} of its key will go.`;
    await context.confirm(`Discard ${inALine(event)}, for good? Nobody will ever receive it.${waiting}`);
    const changed = await discardEvent(source, id, { ...commandOf(context, args), reason });
    return {
      document: { discarded: 1, events: [{ source: source.name, ...changed }] },
      text: `${id} is in the archive as DISCARDED; its key goes on.`,
    };
  },
};

/** Sends published events again. */
export const replayVerb: Verb = {
  name: "replay",
  flags: { ...sourceFlag, from: "T", to: "T", key: "KEY", "dry-run": true },
  required: ["source", "from"],
  synopsis: "--source S --from T [--to T] [--key KEY] [--dry-run]",
  summary: "sends published events again (to: now); the source's relay pauses meanwhile",
  endsInOrder: true,
  async run(context, args) {
    const from = parseTime("from", args.text("from") ?? "");
    const to = parseTime("to", args.text("to") ?? "now");
    const [source] = sourcesOf(context, args);
    if (source === undefined) throw new UsageError("replay needs --source S.");
    const now = await databaseNow(source.database);
    const wanted = { from: from(now), to: to(now), key: args.text("key") };
    const plan = await planReplay(source, wanted, context.archiveRetentionMs);
    const { range, count } = plan;
    const ofKey = range.key === undefined ? "" : ` of the key ${range.key}`;
    const what = `${counted(count.events, "event")}${ofKey} that ${source.name} published from ${range.from.toISOString()} to ${range.to.toISOString()}`;
    const origin = `${count.fromOutbox} from the outbox, ${count.fromArchive} from the archive`;
    const document = { source: source.name, topic: source.topic, range, ...count };
    if (args.has("dry-run") || count.events === 0) {
      return {
        document: { ...document, sent: 0, dryRun: args.has("dry-run") },
        text:
          count.events === 0 ? `Nothing to send: there are no events${ofKey} in that range.` : `${what}: ${origin}.`,
      };
    }
    await context.confirm(`Send ${what} to ${source.topic} again (${origin})? Its relay pauses meanwhile.`);
    const result = await replay(source, {
      plan,
      registry: await context.openRegistry(),
      command: commandOf(context, args),
      openProducer: context.openProducer,
      onProgress: atIntervals((sent) => context.tell(`${sent} of ${count.events} sent`)),
      onWait: context.tell,
      signal: context.signal,
    });
    const stopped = `Stopped after ${result.sent} of ${result.events} events; it may be run again.`;
    return {
      document: { ...document, ...result, dryRun: false },
      text: result.complete
        ? `${counted(result.sent, "event")} sent again; the relay has the source back.`
        : `${stopped} The relay has the source back.`,
      complete: result.complete,
    };
  },
};

/** @throws DomainError NOT_FOUND; what a source said that could not be asked, where the event may be there. */
async function findSomewhere(
  sources: readonly OperatedSource[],
  id: string,
): Promise<{ readonly source: OperatedSource; readonly event: EventDetails }> {
  const { found, faults } = await lookAtEach(sources, async (source) => ({
    source,
    event: await findEvent(source, id),
  }));
  for (const { value } of found) if (value.event !== undefined) return { source: value.source, event: value.event };
  requireNoFaults(faults);
  const names = sources.map(({ name }) => name).join(", ");
  throw new DomainError("NOT_FOUND", `There is no event ${id} in ${names}.`);
}

function inALine(event: EventDetails): string {
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
    retries: event.retryCount,
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

/** Readable where it is JSON, and as it stands where it is not. */
function indented(payload: string): string {
  try {
    return JSON.stringify(JSON.parse(payload), undefined, 2);
  } catch {
    return payload;
  }
}

function atIntervals(tell: (value: number) => void): (value: number) => void {
  let toldMs = performance.now();
  return (value) => {
    if (performance.now() - toldMs < progressIntervalMs) return;
    toldMs = performance.now();
    tell(value);
  };
}
