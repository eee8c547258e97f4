/** The outboxes of the services, and the relay that sends their events to the topic. */
import type { SagaEvent, ServiceName } from "../../../proto/event-table.ts";
import { byService, serviceNames } from "../../../services/stack/services.ts";
import type { Random } from "../random.ts";
import type { Faults } from "./faults.ts";
import type { Journal } from "./journal.ts";
import { batchMax, type EventRecord, type Topic } from "./topic.ts";

export class Relay {
  readonly #topic: Topic;
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #journal: Journal;
  readonly #outboxes = byService((): EventRecord[] => []);
  /** Batches that a frozen relay process has read. It can still send each of them once. */
  readonly #frozen: EventRecord[][] = [];
  #appended = 0;

  constructor(topic: Topic, random: Random, faults: Faults, journal: Journal) {
    this.#topic = topic;
    this.#random = random;
    this.#faults = faults;
    this.#journal = journal;
  }

  /** Nothing is left to send. */
  get isDrained(): boolean {
    return this.#frozen.length === 0 && serviceNames.every((service) => this.#outboxes[service].length === 0);
  }

  /** Writes an event to the service's outbox. */
  append(service: ServiceName, index: number, event: SagaEvent): void {
    this.#outboxes[service].push({ id: `event-${this.#appended++}`, index, event });
  }

  /** Reads a batch of the outbox in order, sends it and marks it as published. */
  sendBatch(service: ServiceName): void {
    const outbox = this.#outboxes[service];
    if (outbox.length === 0) return;
    const batch = outbox.slice(0, 1 + this.#random.below(batchMax));
    if (this.#faults.strike(8, "relay frozen with a batch")) {
      this.#frozen.push(batch);
      return;
    }
    this.#send(batch);
    this.#journal.step(() => `the relay sends ${batch.length} events of ${service}`);
    if (!this.#faults.strike(10, "relay died between send and mark")) outbox.splice(0, batch.length);
  }

  /** A frozen relay process continues and sends the batch that it had read. */
  thaw(): void {
    if (this.#frozen.length === 0) return;
    const [batch] = this.#frozen.splice(this.#random.below(this.#frozen.length), 1);
    if (batch === undefined) return;
    this.#send(batch);
    this.#journal.step(() => `a relay that was frozen sends ${batch.map(({ id }) => id).join(", ")}`);
  }

  #send(records: readonly EventRecord[]): void {
    for (const record of records) this.#topic[record.index % this.#topic.length]?.push(record);
  }
}
