/** Where a process is killed, and the ports of the delivery code wrapped so that it dies there. */
import { writeSync } from "node:fs";
import type { OutboxRow } from "../../proto/envelope.ts";
import type { Inbox } from "../../relay/inbox/inbox.ts";
import type { RecordProducer } from "../../relay/kafka/producer.ts";
import type { OutboxStore, PendingReader } from "../../relay/outbox/store.ts";
import { sleep } from "../../services/kit/backoff.ts";
import type { Database, OwnTransaction } from "../../services/kit/database.ts";

/** In the order of an event's way. */
export const points = [
  "after read",
  "after send before ack",
  "after ack before mark",
  "in the middle of mark",
  "in the middle of mark beside a read",
  "in archive between insert and delete",
  "in consumer before commit",
  "in consumer after commit",
  "before offset commit",
] as const;
export type Point = (typeof points)[number];

const pollMs = 5;
/** The server shows the same state of its transactions to whoever asks again within 100 ms. */
const innodbTrxRefreshMs = 120;
/** More than a batch needs from the inbox's end until its offsets are noted. */
const microtasksToNote = 100;

/** What a process tells with its last breath: that it was at the point, and with what. */
export interface Witness {
  readonly point: Point;
  /** Ids of the events under way. */
  readonly ids: readonly string[];
  /** Records that the broker had acknowledged before. */
  readonly acknowledged: number;
}

/** Which point, and at which time of passing it. */
export interface Death {
  readonly point: Point;
  readonly at: number;
}

/** Dies as by `kill -9`: nothing is flushed, closed or rolled back. */
async function die(witness: Witness): Promise<never> {
  writeSync(1, JSON.stringify(witness));
  process.kill(process.pid, "SIGKILL");
  return await new Promise(() => undefined);
}

/** The relay's ports. `topicSize` counts the records that the broker has; `probe` looks at what its database is doing. */
export function relayPorts(
  { point, at }: Death,
  ports: {
    readonly store: OutboxStore;
    readonly table: string;
    readonly probe: Database;
    readonly openProducer: () => Promise<RecordProducer>;
    readonly topicSize: () => Promise<number>;
  },
): { readonly store: OutboxStore; readonly openProducer: () => Promise<RecordProducer> } {
  const { store, probe } = ports;
  let passed = 0;
  let acknowledged = 0;
  const isNow = (here: Point) => here === point && ++passed === at;

  const dieAfterRead = async (rows: readonly OutboxRow[]) => {
    if (rows.length > 0 && isNow("after read")) await die({ point, ids: rows.map(({ id }) => id), acknowledged });
  };
  let readsUnderWay = 0;
  const reading = async <T>(read: Promise<T>): Promise<T> => {
    readsUnderWay++;
    try {
      return await read;
    } finally {
      readsUnderWay--;
    }
  };
  const reader = (inner: PendingReader): PendingReader => ({
    async readPending(options) {
      const rows = await reading(inner.readPending(options));
      await dieAfterRead(rows);
      return rows;
    },
  });
  /** Somebody has locked the last of the rows: the statement comes to a halt with the others changed. */
  const dieInMark = (ids: readonly string[], mark: () => Promise<unknown>) =>
    probe.transaction(async (transaction) => {
      await transaction.query(`SELECT id FROM ${ports.table} WHERE id = ? FOR UPDATE`, [ids.at(-1)]);
      void mark();
      await until(innodbTrxRefreshMs, async () => {
        const waiting = await probe.query(
          `SELECT trx_id FROM information_schema.innodb_trx
            WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE 'UPDATE %' AND LOCATE(?, trx_query) > 0`,
          [ids[0]],
        );
        return waiting.length > 0;
      });
      return await die({ point, ids, acknowledged });
    });
  return {
    store: {
      ...store,
      ...reader(store),
      snapshot: (work) => store.snapshot((inner) => work(reader(inner))),
      async markPublished(ids) {
        const mark = () => store.markPublished(ids);
        const isBeside = readsUnderWay > 0 && isNow("in the middle of mark beside a read");
        const isHere = isBeside || isNow("in the middle of mark");
        return isHere ? await dieInMark(ids, mark) : await mark();
      },
      async readHeldKeysAndPending(options) {
        const read = await reading(store.readHeldKeysAndPending(options));
        await dieAfterRead(read.rows);
        return read;
      },
    },
    async openProducer() {
      const producer = await ports.openProducer();
      return {
        ...producer,
        async send(topic, records) {
          const ids = records.map(({ headers }) => String(headers.ce_id));
          if (isNow("after send before ack")) {
            const before = await ports.topicSize();
            // Nobody takes the answer.
            void producer.send(topic, records);
            await until(pollMs, async () => (await ports.topicSize()) >= before + ids.length);
            await die({ point, ids, acknowledged });
          }
          await producer.send(topic, records);
          acknowledged += records.length;
          if (isNow("after ack before mark")) await die({ point, ids, acknowledged });
        },
      };
    },
  };
}

/** The archive's database. */
export function archiveDatabase({ point, at }: Death, database: Database): Database {
  let passed = 0;
  return inTransactions(database, (transaction) => ({
    ...transaction,
    async execute(sql, values) {
      if (/^\s*DELETE\b/.test(sql) && ++passed === at && point === "in archive between insert and delete") {
        await die({ point, ids: (values?.[0] ?? []) as readonly string[], acknowledged: 0 });
      }
      return await transaction.execute(sql, values);
    },
  }));
}

/** The inbox's database. `ids` are the events that it handles at the moment. */
export function inboxDatabase({ point, at }: Death, database: Database, ids: () => readonly string[]): Database {
  let passed = 0;
  return inTransactions(database, (transaction) => ({
    ...transaction,
    async commit(statements) {
      const isTime = ++passed === at;
      if (isTime && point === "in consumer before commit") {
        // All is written, and nothing committed.
        await transaction.pipeline(statements);
        await die({ point, ids: ids(), acknowledged: 0 });
      }
      await transaction.commit(statements);
      if (isTime && point === "in consumer after commit") await die({ point, ids: ids(), acknowledged: 0 });
    },
  }));
}

/** The consumer's inbox: a batch is done, and its offsets are about to be committed. */
export function consumerInbox({ point, at }: Death, inbox: Inbox, ids: () => readonly string[]): Inbox {
  let passed = 0;
  return {
    ...inbox,
    async handle(records, signal) {
      await inbox.handle(records, signal);
      if (point !== "before offset commit" || ++passed !== at) return;
      const done = ids();
      void (async () => {
        // The consumer notes the offsets meanwhile; a timer commits them, and none runs before all of these are done.
        for (let turn = 0; turn < microtasksToNote; turn++) await undefined;
        await die({ point, ids: done, acknowledged: 0 });
      })();
    },
  };
}

function inTransactions(database: Database, wrap: (transaction: OwnTransaction) => OwnTransaction): Database {
  return {
    ...database,
    transaction: (work, options) => database.transaction((transaction) => work(wrap(transaction)), options),
  };
}

async function until(intervalMs: number, check: () => Promise<boolean>): Promise<void> {
  while (!(await check())) await sleep(intervalMs);
}
