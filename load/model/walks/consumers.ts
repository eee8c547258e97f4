/** The services' consumer groups: they fetch batches of records, handle them, and commit their offsets. */
import { eventTypesHandledBy, type ServiceName } from "../../../proto/event-table.ts";
import { byService, serviceNames } from "../../../services/stack/services.ts";
import type { Random } from "../random.ts";
import { shortName } from "../world/event-summary.ts";
import type { Faults } from "./faults.ts";
import type { Journal } from "./journal.ts";
import type { Orders } from "./orders.ts";
import { batchMax, type EventRecord, type Topic } from "./topic.ts";

/** A consumer group's progress in one partition. */
interface Progress {
  committed: number;
  /** The offset to fetch next. */
  position: number;
  /** Grows with each rebalance. A consumer with a batch of an older generation has lost the partition. */
  generation: number;
}

/** Records that a consumer has fetched and not handled yet. */
interface Batch {
  readonly service: ServiceName;
  readonly partition: number;
  readonly from: number;
  readonly to: number;
  readonly generation: number;
}

const handledBy = byService(eventTypesHandledBy);

export class Consumers {
  readonly #topic: Topic;
  readonly #orders: Orders;
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #journal: Journal;
  /** By service: the ids of the events that it has handled. */
  readonly #inboxes = byService(() => new Set<string>());
  readonly #progress: Readonly<Record<ServiceName, readonly Progress[]>>;
  readonly #fetched: Batch[] = [];

  constructor(topic: Topic, orders: Orders, random: Random, faults: Faults, journal: Journal) {
    this.#topic = topic;
    this.#orders = orders;
    this.#random = random;
    this.#faults = faults;
    this.#journal = journal;
    this.#progress = byService(() => topic.map(() => ({ committed: 0, position: 0, generation: 0 })));
  }

  /** Every record is handled and every offset committed. */
  get isCaughtUp(): boolean {
    const isAtEnd = ({ committed }: Progress, partition: number) => committed === this.#topic[partition]?.length;
    return this.#fetched.length === 0 && serviceNames.every((service) => this.#progress[service].every(isAtEnd));
  }

  /** Fetches the next batch of the partition, unless its consumer is still busy with one. */
  fetch(service: ServiceName, partition: number): void {
    const progress = this.#progress[service][partition];
    const end = this.#topic[partition]?.length ?? 0;
    if (progress === undefined || progress.position >= end) return;
    const { position: from, generation } = progress;
    const isBusy = this.#fetched.some(
      (it) => it.service === service && it.partition === partition && it.generation === generation,
    );
    if (isBusy) return;
    const to = Math.min(end, from + 1 + this.#random.below(batchMax));
    this.#fetched.push({ service, partition, from, to, generation });
    progress.position = to;
  }

  /** Fetches from every partition. */
  fetchAll(service: ServiceName): void {
    for (const partition of this.#topic.keys()) this.fetch(service, partition);
  }

  /** Handles one of the batches that were fetched. */
  handleAny(): void {
    if (this.#fetched.length > 0) this.#handle(this.#random.pick(this.#fetched));
  }

  handleAll(): void {
    for (const batch of [...this.#fetched]) this.#handle(batch);
  }

  /** The partition moves to another consumer of the group, perhaps while the first one has a batch of it. */
  rebalance(service: ServiceName, partition: number): void {
    const progress = this.#progress[service][partition];
    if (progress === undefined) return;
    const isInBatch = progress.position > progress.committed;
    this.#reassign(service, partition);
    if (isInBatch) this.#journal.fault("rebalance during a batch");
  }

  /** The service forgets which events it has handled and reads the topic again from its beginning. */
  emptyInbox(service: ServiceName): void {
    if (this.#inboxes[service].size === 0) return;
    this.#inboxes[service].clear();
    for (const [partition, progress] of this.#progress[service].entries()) {
      progress.committed = 0;
      this.#reassign(service, partition);
    }
    this.#journal.fault("inbox emptied, topic read again from its beginning");
  }

  /** Commits a batch in one transaction, then its offset. */
  #handle(batch: Batch): void {
    this.#fetched.splice(this.#fetched.indexOf(batch), 1);
    const { service, partition, to, generation } = batch;
    if (this.#faults.strike(5, "consumer died before its commit")) {
      this.#reassign(service, partition);
      return;
    }
    this.#commit(batch);
    const progress = this.#progress[service][partition];
    if (progress === undefined || generation !== progress.generation) {
      this.#journal.fault("batch handled by a consumer that had lost the partition");
    } else if (this.#faults.strike(8, "consumer died between commit and offset")) {
      this.#reassign(service, partition);
    } else {
      progress.committed = to;
    }
  }

  #commit({ service, partition, from, to }: Batch): void {
    const inbox = this.#inboxes[service];
    const fresh: EventRecord[] = [];
    for (const record of this.#topic[partition]?.slice(from, to) ?? []) {
      if (!handledBy[service].has(record.event.$typeName) || inbox.has(record.id)) continue;
      inbox.add(record.id);
      fresh.push(record);
    }
    this.#journal.step(() => {
      const names = fresh.map(({ index, event }) => `${shortName(event)} of order-${index}`).join(", ");
      return `${service} handles ${from}–${to} of partition ${partition}: ${names || "nothing new"}`;
    });
    this.#orders.handleBatch(service, fresh);
  }

  /** The partition's next consumer continues at the committed offset. */
  #reassign(service: ServiceName, partition: number): void {
    const progress = this.#progress[service][partition];
    if (progress === undefined) return;
    progress.generation++;
    progress.position = progress.committed;
  }
}
