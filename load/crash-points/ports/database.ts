/** The databases of archive and inbox, and the consumer's inbox, wrapped so that their process dies at a point. */
import type { Inbox } from "../../../relay/inbox/inbox.ts";
import type { Database, OwnTransaction } from "../../../services/kit/database.ts";
import type { Crash } from "../points.ts";

/** More turns of the event loop's microtasks than a consumer needs to note the offsets of a handled batch. */
const microtasksToNote = 100;

/** The archive's database. */
export function crashingArchiveDatabase(crash: Crash, database: Database): Database {
  return wrapTransactions(database, (transaction) => ({
    ...transaction,
    async execute(sql, values) {
      if (/^\s*DELETE\b/.test(sql) && crash.isDue("in archive between insert and delete")) {
        await crash.die((values?.[0] ?? []) as readonly string[]);
      }
      return await transaction.execute(sql, values);
    },
  }));
}

/** The inbox's database. `currentIds` returns the events that the inbox is handling. */
export function crashingInboxDatabase(crash: Crash, database: Database, currentIds: () => readonly string[]): Database {
  return wrapTransactions(database, (transaction) => ({
    ...transaction,
    async commit(statements) {
      if (crash.isDue("in consumer before commit")) {
        // Everything is written, and nothing is committed.
        await transaction.pipeline(statements);
        await crash.die(currentIds());
      }
      await transaction.commit(statements);
      if (crash.isDue("in consumer after commit")) await crash.die(currentIds());
    },
  }));
}

/** The inbox of a consumer, which dies when a batch is handled and its offsets are about to be committed. */
export function crashingInbox(crash: Crash, inbox: Inbox, currentIds: () => readonly string[]): Inbox {
  return {
    ...inbox,
    async handle(records, signal) {
      await inbox.handle(records, signal);
      if (!crash.isDue("before offset commit")) return;
      const ids = currentIds();
      void (async () => {
        // Meanwhile the consumer notes the offsets. A timer commits them, and no timer runs before these turns are over.
        for (let turn = 0; turn < microtasksToNote; turn++) await undefined;
        await crash.die(ids);
      })();
    },
  };
}

function wrapTransactions(database: Database, wrap: (transaction: OwnTransaction) => OwnTransaction): Database {
  return {
    ...database,
    transaction: (work, options) => database.transaction((transaction) => work(wrap(transaction)), options),
  };
}
