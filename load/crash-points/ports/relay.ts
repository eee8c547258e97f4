/** The relay's ports, wrapped so that its process dies at a point. */
import type { OutboxRow } from "../../../proto/envelope.ts";
import type { RecordProducer } from "../../../relay/kafka/producer.ts";
import type { OutboxStore, PendingReader } from "../../../relay/outbox/store.ts";
import { sleep } from "../../../services/kit/backoff.ts";
import type { Database } from "../../../services/kit/database.ts";
import type { Crash } from "../points.ts";

const topicPollIntervalMs = 5;
/** InnoDB refreshes its view of the transactions at most every 100 ms. */
const transactionsPollIntervalMs = 120;

/** What the relay works with, and what the wrapper needs in order to find the right moment. */
export interface RelayPorts {
  readonly store: OutboxStore;
  readonly openProducer: () => Promise<RecordProducer>;
  /** The outbox table of the store. */
  readonly table: string;
  /** Locks rows, and watches the statements that wait for them. */
  readonly probe: Database;
  /** The number of records on the topic. */
  readonly topicSize: () => Promise<number>;
}

export class CrashingRelayPorts implements Pick<RelayPorts, "store" | "openProducer"> {
  readonly store: OutboxStore;
  readonly #crash: Crash;
  readonly #ports: RelayPorts;
  #readsInProgress = 0;
  #acknowledged = 0;

  constructor(crash: Crash, ports: RelayPorts) {
    this.#crash = crash;
    this.#ports = ports;
    this.store = this.#wrapStore(ports.store);
  }

  readonly openProducer = async (): Promise<RecordProducer> => {
    const producer = await this.#ports.openProducer();
    return {
      ...producer,
      send: async (topic, records) => {
        const ids = records.map(({ headers }) => String(headers.ce_id));
        if (this.#crash.isDue("after send before ack")) {
          const before = await this.#ports.topicSize();
          // Not awaited: the process dies when the broker has the records, before it takes the acknowledgement.
          void producer.send(topic, records);
          await until(topicPollIntervalMs, async () => (await this.#ports.topicSize()) >= before + ids.length);
          await this.#crash.die(ids, this.#acknowledged);
        }
        await producer.send(topic, records);
        this.#acknowledged += records.length;
        if (this.#crash.isDue("after ack before mark")) await this.#crash.die(ids, this.#acknowledged);
      },
    };
  };

  #wrapStore(store: OutboxStore): OutboxStore {
    return {
      ...store,
      ...this.#reader(store),
      snapshot: (work) => store.snapshot((reader) => work(this.#reader(reader))),
      readHeldKeysAndPending: async (options) => {
        const read = await this.#duringRead(store.readHeldKeysAndPending(options));
        await this.#afterRead(read.rows);
        return read;
      },
      markPublished: async (ids) => {
        const isDue =
          (this.#readsInProgress > 0 && this.#crash.isDue("in the middle of mark, during the next read")) ||
          this.#crash.isDue("in the middle of mark");
        return isDue ? await this.#dieInMark(ids) : await store.markPublished(ids);
      },
    };
  }

  #reader(reader: PendingReader): PendingReader {
    return {
      readPending: async (options) => {
        const rows = await this.#duringRead(reader.readPending(options));
        await this.#afterRead(rows);
        return rows;
      },
    };
  }

  async #duringRead<T>(read: Promise<T>): Promise<T> {
    this.#readsInProgress++;
    try {
      return await read;
    } finally {
      this.#readsInProgress--;
    }
  }

  async #afterRead(rows: readonly OutboxRow[]): Promise<void> {
    if (rows.length === 0 || !this.#crash.isDue("after read")) return;
    const ids = rows.map(({ id }) => id);
    await this.#crash.die(ids, this.#acknowledged);
  }

  /** Locks the last of the rows first, so that the UPDATE has changed the others and waits when the process dies. */
  #dieInMark(ids: readonly string[]): Promise<never> {
    const { probe, store, table } = this.#ports;
    return probe.transaction(async (transaction) => {
      await transaction.query(`SELECT id FROM ${table} WHERE id = ? FOR UPDATE`, [ids.at(-1)]);
      void store.markPublished(ids);
      await until(transactionsPollIntervalMs, async () => {
        const waiting = await probe.query(
          `SELECT trx_id FROM information_schema.innodb_trx
            WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE 'UPDATE %' AND LOCATE(?, trx_query) > 0`,
          [ids[0]],
        );
        return waiting.length > 0;
      });
      return await this.#crash.die(ids, this.#acknowledged);
    });
  }
}

async function until(intervalMs: number, check: () => Promise<boolean>): Promise<void> {
  while (!(await check())) await sleep(intervalMs);
}
