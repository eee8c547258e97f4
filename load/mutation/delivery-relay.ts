/** Mutants of the sending side: mistakes in relay/outbox/ and relay/operations/. See delivery.ts. */
import type { DeliveryMutant } from "./delivery-mutant.ts";

const relayTests = "relay/outbox/relay.int.test.ts";
const deadLetterTests = "relay/outbox/dead-letter.int.test.ts";
const archiveTests = "relay/outbox/archive.int.test.ts";
const refusedTests = "relay/outbox/refused-partitions.int.test.ts";
const operationsTests = "relay/operations/operations.int.test.ts";

export const relayMutants: readonly DeliveryMutant[] = [
  // Relay
  {
    name: "marks rows before it sends them",
    file: "relay/outbox/publisher.ts",
    changes: [
      {
        from: "if (first === undefined) return;",
        to: "if (first === undefined) return;\n    const early = this.#options.acknowledged;\n    early.add(sendable.map(({ row }) => row.id));\n    await early.mark();",
      },
    ],
    caughtBy: {
      file: relayTests,
      name: "a broker outage counts against no row, and afterwards everything arrives in order",
    },
  },
  {
    name: "reads on from the last seq instead of by status",
    file: "relay/outbox/relay.ts",
    changes: [
      {
        from: "  readonly #pageSize = new PageSize();",
        to: '  readonly #pageSize = new PageSize();\n  #cursor = "0";',
      },
      {
        from: "const unmarked = new Set(acknowledged.ids);",
        to: "await acknowledged.mark();\n    const next = await this.#readPage(store, this.#cursor);\n    this.#cursor = next.lastSeq;\n    if (next) return next;\n    const unmarked = new Set<string>();",
      },
    ],
    caughtBy: {
      file: relayTests,
      name: "a transaction that commits after one with a higher seq is not skipped",
    },
  },
  {
    name: "is not ready while it waits for a source that it lost in mid-pass",
    file: "relay/outbox/relay.ts",
    changes: [{ from: "(delivers || !ownership.isFresh())", to: "delivers" }],
    caughtBy: {
      file: "relay/outbox/relay.unit.test.ts",
      name: "a replica that loses its source in mid-pass is ready as soon as it waits for it again, although the pass fails",
    },
  },
  {
    name: "reads the pages of a backlog outside of one snapshot",
    file: "services/kit/transaction.ts",
    changes: [{ from: "LEVEL REPEATABLE READ", to: "LEVEL READ COMMITTED" }],
    caughtBy: {
      file: relayTests,
      name: "a transaction that commits between two pages is not overtaken by a later event of its key",
    },
  },
  {
    name: "lets two relays own a source",
    file: "relay/outbox/ownership.ts",
    changes: [
      {
        from: "const isOwner = await (this.#isOwner ? lock.keep(() => this.#setOwner(false)) : lock.tryToOwn());",
        to: "const isOwner = true;\n        await connection.query('SELECT 1');",
      },
    ],
    caughtBy: {
      file: relayTests,
      name: "of two relays one delivers, and the other takes over when the owner's connection is killed",
    },
  },
  {
    name: "considers itself the owner for longer than the server waits for it",
    file: "relay/outbox/ownership-times.ts",
    changes: [{ from: "const freshForMs = 3_000;", to: "const freshForMs = 10_000;" }],
    caughtBy: {
      file: relayTests,
      name: "an owner that was suspended does not consider itself the owner when it wakes, even before a timer runs",
    },
  },
  {
    name: "sends without checking that it is still the owner",
    file: "relay/outbox/owned-producer.ts",
    changes: [
      {
        from: "    // Checked last, because everything before it may take time.\n    this.#requireOwnership();",
        to: "",
      },
    ],
    caughtBy: { file: relayTests, name: "rows that were read before the ownership was lost are not sent" },
  },
  {
    name: "marks rows whatever their status",
    file: "relay/outbox/store.ts",
    changes: [{ from: "WHERE id IN (?) AND status IN ('PENDING', 'FAILED')", to: "WHERE id IN (?)" }],
    caughtBy: {
      file: relayTests,
      name: "a mark changes only rows that are still pending or failed",
    },
  },
  {
    name: "counts an outage as an attempt",
    file: "relay/outbox/faults.ts",
    changes: [{ from: '"too-large" ? "poison" : undefined', to: '"too-large" ? "poison" : "poison"' }],
    caughtBy: {
      file: relayTests,
      name: "a broker outage counts against no row, and afterwards everything arrives in order",
    },
  },
  {
    name: "does not hold the key of a failed row",
    file: "relay/outbox/store.ts",
    changes: [{ from: "keys: new Set(rows.map(({ aggregateId }) => aggregateId)),", to: "keys: new Set<string>()," }],
    caughtBy: {
      file: deadLetterTests,
      name: "a failed row holds its key from its first failed attempt on, also in a pass that follows at once",
    },
  },
  {
    name: "attempts a failed row before an earlier row of its key",
    file: "relay/outbox/store.ts",
    changes: [{ from: "earlier.status IN ('PENDING', 'FAILED', 'DEAD')", to: "earlier.status = 'DEAD'" }],
    caughtBy: {
      file: deadLetterTests,
      name: "a failed row is not attempted before an earlier unpublished row of its key",
    },
  },
  {
    name: "marks a row DEAD without its dead letter",
    file: "relay/outbox/poison-rows.ts",
    changes: [
      {
        from: "if (isLast && (await this.#sendDeadLetter(row, attempt.error, attempts))) {",
        to: "if (isLast) {\n      await this.#sendDeadLetter(row, attempt.error, attempts);",
      },
    ],
    caughtBy: {
      file: deadLetterTests,
      name: "a poison row does not become DEAD before its dead letter is sent, and meanwhile delays no other key",
    },
  },
  {
    name: "stops at a partition that refuses",
    file: "relay/outbox/publisher.ts",
    changes: [
      {
        from: "if (fault === undefined) return await this.#sendByPartition(sendable, error);",
        to: "if (fault === undefined) throw error;",
      },
    ],
    caughtBy: {
      file: refusedTests,
      name: "while one of 12 partitions refuses, only its keys wait, nothing is counted, and the others keep their speed",
    },
  },
  {
    name: "waits for the probe of a partition that does not answer",
    file: "relay/outbox/relay.ts",
    changes: [
      {
        from: "refusedPartitions.refresh(performance.now());",
        to: "refusedPartitions.refresh(performance.now());\n    await refusedPartitions.settled();",
      },
    ],
    caughtBy: {
      file: refusedTests,
      name: "while one of 12 partitions does not answer, only its keys wait, nothing is counted, and the others keep their speed",
    },
  },
  {
    name: "goes on sending to a partition that refuses",
    file: "relay/outbox/held-keys.ts",
    changes: [{ from: "return this.#options.refusedPartitions.holds(aggregateId);", to: "return false;" }],
    caughtBy: {
      file: refusedTests,
      name: "while one of 12 partitions refuses, only its keys wait, nothing is counted, and the others keep their speed",
    },
  },
  {
    name: "sends by partition without checking that it is still the owner",
    file: "relay/outbox/owned-producer.ts",
    changes: [
      {
        from: "producer = await this.#options.openProducer();\n      this.#requireOwnership();",
        to: "producer = await this.#options.openProducer();",
      },
    ],
    caughtBy: {
      file: refusedTests,
      name: "a relay that lost its source during a send that failed sends nothing by partition",
    },
  },
  {
    name: "reads held rows ten at a time",
    file: "relay/outbox/relay.ts",
    changes: [
      { from: "growAfter(read);", to: "growAfter(rows.map(({ row }) => row));" },
      { from: "growAfter(page.read);", to: "growAfter(page.rows.map(({ row }) => row));" },
    ],
    caughtBy: { file: relayTests, name: "after a start, rows of thousands of held keys delay no other key" },
  },
  {
    name: "lets an operator discard a row that is being sent",
    file: "relay/outbox/store.ts",
    changes: [{ from: "SET status = 'PENDING', next_attempt_at = NULL", to: "SET next_attempt_at = NULL" }],
    caughtBy: { file: operationsTests, name: "an event cannot be discarded while the relay sends it" },
  },
  // Archive
  {
    name: "stops archiving at rows that are not old enough",
    file: "relay/outbox/archive.ts",
    changes: [{ from: "isLast: rows.length < batchSize || last?.isRecent === 1", to: "isLast: true" }],
    caughtBy: {
      file: archiveTests,
      name: "rows that were published long after they occurred do not keep later rows from the archive",
    },
  },
  {
    name: "archives no faster when it is behind",
    file: "services/kit/pace.ts",
    changes: [
      {
        from: "const isBehind = nowMs - startedMs >= behindAfterMs;",
        to: "const isBehind = false;",
      },
    ],
    caughtBy: {
      file: archiveTests,
      name: "a run that is behind pauses less, when it archives and when it prunes",
    },
  },
  {
    name: "archives rows that are not published",
    file: "relay/outbox/archive.ts",
    changes: [
      {
        from: "WHERE status = 'PUBLISHED' AND seq > CAST(? AS UNSIGNED) ORDER BY",
        to: "WHERE seq > CAST(? AS UNSIGNED) ORDER BY",
      },
      // In the INSERT, and in the DELETE.
      { from: "AND status = 'PUBLISHED'`,\n      [ids],", to: "`,\n      [ids]," },
      { from: "AND status = 'PUBLISHED'`, [", to: "`, [" },
    ],
    caughtBy: {
      file: archiveTests,
      name: "only published rows that are old enough move to the archive, complete, none lost or duplicated",
    },
  },
  {
    name: "inserts into the archive outside of the transaction that deletes",
    file: "relay/outbox/archive.ts",
    changes: [
      { from: "const inserted = await transaction.execute(", to: "const inserted = await options.database.execute(" },
    ],
    caughtBy: {
      file: archiveTests,
      name: "a crash between insert and delete leaves every row in one table, and the next run moves them",
    },
  },
];
