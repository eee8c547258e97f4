/** The verbs about the archive. */

import { archiveNow } from "../../../relay/operations/archive.ts";
import { databaseNow } from "../../../relay/operations/undelivered.ts";
import { archiveStatus } from "../../../relay/outbox/archive.ts";
import { formatTable } from "../../kit/table.ts";
import { parseAge } from "../arguments.ts";
import { commandOf, lookAtEach, requireNoFaults, sourceFlag, sourcesOf, type Verb, withFaults } from "../context.ts";
import { counted, duration } from "../rendering.ts";

const olderThanDefault = "1d";

/** What lies where. */
export const archiveStatusVerb: Verb = {
  name: "archive status",
  flags: sourceFlag,
  synopsis: "[--source S]",
  summary: "how many published events are in the outbox, and how many in the archive",
  async run(context, args) {
    const { found, faults } = await lookAtEach(sourcesOf(context, args), async (source) => {
      const { oldestPublishedAt, ...counts } = await archiveStatus(source.database, source);
      const now = await databaseNow(source.database);
      const oldestAgeMs = oldestPublishedAt === undefined ? null : now.getTime() - oldestPublishedAt.getTime();
      return { ...counts, oldestPublishedAt: oldestPublishedAt ?? null, oldestAgeMs };
    });
    return {
      document: { sources: found.map(({ source, value }) => ({ source, ...value })), faults },
      text: withFaults(
        formatTable(
          ["source", "published in outbox", "oldest", "archived", "discarded"],
          found.map(({ source, value }) => [
            source,
            value.published,
            duration(value.oldestAgeMs),
            value.archived,
            value.discarded,
          ]),
        ),
        faults,
      ),
      complete: faults.length === 0,
    };
  },
};

/** Archives now. */
export const archiveRun: Verb = {
  name: "archive run",
  flags: { ...sourceFlag, "older-than": "AGE" },
  synopsis: "[--older-than AGE] [--source S]",
  summary: `moves what was published longer ago (${olderThanDefault}) to the archive now`,
  endsInOrder: true,
  async run(context, args) {
    const olderThan = args.text("older-than") ?? olderThanDefault;
    const olderThanMs = parseAge("older-than", olderThan);
    const sources = sourcesOf(context, args);
    // Asked before anything is changed, so that it is not begun with half of them.
    requireNoFaults((await lookAtEach(sources, ({ database }) => databaseNow(database))).faults);
    const names = sources.map(({ name }) => name).join(", ");
    await context.confirm(`Archive what ${names} published longer than ${olderThan} ago?`);
    const moved: Record<string, number> = {};
    for (const source of sources) {
      if (context.signal.aborted) break;
      context.tell(`Archiving ${source.name} …`);
      const result = await archiveNow(source, {
        olderThanMs,
        command: commandOf(context, args),
        signal: context.signal,
      });
      moved[source.name] = result.moved;
    }
    const total = Object.values(moved).reduce((a, b) => a + b, 0);
    const complete = !context.signal.aborted;
    return {
      document: { moved: total, sources: moved, complete },
      text: `${counted(total, "event")} moved${complete ? "" : "; stopped, and may be run again"}.`,
      complete,
    };
  },
};
