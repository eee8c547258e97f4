/** The verbs about the archive of published events. */

import { archiveNow } from "../../../relay/operations/archive.ts";
import { archiveStatus } from "../../../relay/outbox/archive.ts";
import { databaseNow } from "../../kit/database.ts";
import { formatTable } from "../../kit/table.ts";
import { parseAge } from "../arguments.ts";
import { commandOf, readEach, requireNoFailures, sourceFlag, sourcesOf, type Verb, withFailures } from "../context.ts";
import { counted, duration } from "../rendering.ts";

const olderThanDefault = "1d";

export const archiveStatusVerb: Verb = {
  name: "archive status",
  flags: sourceFlag,
  synopsis: "[--source S]",
  summary: "how many events are in the outbox and in the archive",
  async run(context, args) {
    const { results, failures } = await readEach(sourcesOf(context, args), async (source) => {
      const { oldestPublishedAt, ...counts } = await archiveStatus(source.database, source);
      const now = await databaseNow(source.database);
      const oldestAgeMs = oldestPublishedAt === undefined ? null : now.getTime() - oldestPublishedAt.getTime();
      return { ...counts, oldestPublishedAt: oldestPublishedAt ?? null, oldestAgeMs };
    });
    return {
      document: { sources: results.map(({ source, value }) => ({ source, ...value })), failures },
      text: withFailures(
        formatTable(
          ["source", "published in outbox", "oldest", "archived", "discarded"],
          results.map(({ source, value }) => [
            source,
            value.published,
            duration(value.oldestAgeMs),
            value.archived,
            value.discarded,
          ]),
        ),
        failures,
      ),
      complete: failures.length === 0,
    };
  },
};

export const archiveRunVerb: Verb = {
  name: "archive run",
  flags: { ...sourceFlag, "older-than": "AGE" },
  synopsis: "[--older-than AGE] [--source S]",
  summary: `moves events published more than AGE ago (default ${olderThanDefault}) to the archive`,
  stopsWhenAsked: true,
  async run(context, args) {
    const olderThan = args.text("older-than") ?? olderThanDefault;
    const olderThanMs = parseAge("older-than", olderThan);
    const sources = sourcesOf(context, args);
    // Before anything changes: a database that is down must not stop the run half-way.
    requireNoFailures((await readEach(sources, ({ database }) => databaseNow(database))).failures);
    const names = sources.map(({ name }) => name).join(", ");
    await context.confirm(`Archive the events that ${names} published more than ${olderThan} ago?`);
    const moved: Record<string, number> = {};
    for (const source of sources) {
      if (context.signal.aborted) break;
      context.showProgress(`Archiving ${source.name} …`);
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
      text: `${counted(total, "event")} moved${complete ? "" : ". Stopped before the end: run it again for the rest"}.`,
      complete,
    };
  },
};
