/**
 * Mutants of the delivery code: deliberate mistakes in relay/, in what it rests on, in Payment's calls of the gateway and in Order's watches, one at
 * a time, each with the test that must fail because of it. A mutant that survives is a mistake that the tests would not notice.
 */
import type { DeliveryMutant } from "./delivery-mutant.ts";
import { relayMutants } from "./delivery-relay.ts";

const consumerTests = "relay/inbox/consumer.int.test.ts";
const parkingTests = "relay/inbox/parking.int.test.ts";
const paymentWorkerTests = "services/payment/worker.int.test.ts";
const orderApiTests = "services/order/api.int.test.ts";
const sessionTests = "services/kit/sessions.int.test.ts";

export const deliveryMutants: readonly DeliveryMutant[] = [
  ...relayMutants,
    },
  },
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
      { from: "  #pageRows = probeRows;", to: '  #pageRows = probeRows;\n  #cursor = "0";' },
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
        from: "const isOwner = await (this.#isOwner ? lock.keep(() => this.#become(false)) : lock.tryToOwn());",
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
    file: "relay/outbox/ownership.ts",
    changes: [{ from: "const freshForMs = 3_000;", to: "const freshForMs = 10_000;" }],
    caughtBy: {
      file: relayTests,
      name: "an owner whose process stood still does not consider itself the owner, even before a timer runs",
    },
  },
  {
    name: "sends without checking that it is still the owner",
    file: "relay/outbox/owned-producer.ts",
    changes: [{ from: "if (!this.#options.ownership.isFresh()) throw new OwnershipLostError();", to: "" }],
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
      name: "a failed row holds its key from its first attempt on, even for a pass that follows at once",
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
  // Archive
  {
    name: "archives rows that are not published",
    file: "relay/outbox/archive.ts",
    changes: [
      { from: "WHERE status = 'PUBLISHED' ORDER BY seq LIMIT ? FOR UPDATE", to: "ORDER BY seq LIMIT ? FOR UPDATE" },
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
  // Inbox
  {
    name: "writes the inbox rows in a transaction of their own",
    file: "relay/inbox/attempt.ts",
    changes: [
      {
        from: "await recordFresh(transaction, service, newId(), entries)",
        to: "await database.transaction((own) => recordFresh(own, service, newId(), entries))",
      },
      {
        from: "{ service, newId, effects }: AttemptOptions<M>",
        to: "{ service, database, newId, effects }: AttemptOptions<M>",
      },
    ],
    caughtBy: { file: parkingTests, name: "an event that succeeds at its second or third attempt is not parked" },
  },
  {
    name: "handles an event that is in the inbox already",
    file: "relay/inbox/rows.ts",
    changes: [{ from: "entries.filter(({ identity }) => ours.has(identity.eventId))", to: "entries" }],
    caughtBy: {
      file: consumerTests,
      name: "every event has its effect once, in batches, and none when it is delivered again",
    },
  },
  {
    name: "commits offsets before the transaction",
    file: "relay/inbox/consumer.ts",
    changes: [
      {
        from: "await (size.isReduced ? inbox.handle(part, signal) : handleTogether(part, signal));",
        to: "void handleTogether(part, signal).catch(() => undefined);",
      },
    ],
    caughtBy: {
      file: consumerTests,
      name: "while the database is away nothing is lost: the same batch is retried, in order",
    },
  },
  {
    name: "lets a partition that failed share transactions with the others again",
    file: "relay/inbox/consumer.ts",
    changes: [
      {
        from: "await (size.isReduced ? inbox.handle(part, signal) : handleTogether(part, signal));",
        to: "await handleTogether(part, signal);",
      },
    ],
    caughtBy: {
      file: consumerTests,
      name: "a row that stays locked holds up its own partition and no other, not even for records that come later",
    },
  },
  {
    name: "fetches no partition while the records of one cannot be handled",
    file: "relay/inbox/consumer.ts",
    changes: [{ from: "    stepAsideAfterMs: inboxRetryPolicy.batch.stepAsideAfterMs,\n", to: "" }],
    caughtBy: {
      file: consumerTests,
      name: "a row that stays locked holds up its own partition and no other, not even for records that come later",
    },
  },
  {
    name: "retries a batch that is too slow at the same size",
    file: "relay/inbox/consumer.ts",
    changes: [{ from: "        size.failed(part.length);\n", to: "" }],
    caughtBy: {
      file: consumerTests,
      name: "a batch that is too slow for its time limit is handled in smaller ones, in order",
    },
  },
  {
    name: "does not hold a parked key",
    file: "relay/inbox/parking.ts",
    changes: [
      {
        from: "WHERE aggregate_id IN (?) ORDER BY aggregate_id FOR UPDATE",
        to: "WHERE aggregate_id IN (?) AND FALSE FOR UPDATE",
      },
    ],
    caughtBy: {
      file: parkingTests,
      name: "an undecodable record is parked byte for byte with the later events of its key, and its duplicates are dropped",
    },
  },
  // Payment's calls of the gateway
  {
    name: "claims payments in a status that it does not know",
    file: "services/payment/repository.ts",
    changes: [
      {
        from: "CURRENT_TIMESTAMP(3) AND status IN (?)",
        to: "CURRENT_TIMESTAMP(3) AND ? IS NOT NULL",
      },
      { from: "[pendingStatuses, options.limit]", to: '["", options.limit]' },
    ],
    caughtBy: {
      file: paymentWorkerTests,
      name: "a payment in a status that this version does not know, and a damaged one, stop no other claim",
    },
  },
  {
    name: "records the outcomes of calls only together",
    file: "services/payment/gateway-calls.ts",
    changes: [
      {
        from: "attempt === 0 ? recorder.record(answered) : recorder.recordAlone(answered)",
        to: "recorder.record(answered)",
      },
    ],
    caughtBy: {
      file: paymentWorkerTests,
      name: "a payment whose row stays locked does not hold up the outcomes of others",
    },
  },
  {
    name: "calls the gateway during the pause that it has asked for",
    file: "services/payment/throttle.ts",
    changes: [{ from: "isPaused: () => nowMs() < pausedUntilMs", to: "isPaused: () => false" }],
    caughtBy: {
      file: paymentWorkerTests,
      name: "a 429 pauses all calls of this process until Retry-After has passed",
    },
  },
  {
    name: "believes an authorisation whatever it is for",
    file: "services/payment/gateway-client.ts",
    changes: [
      { from: "if (fields.amountMinor !== amount.minorUnits.toString())", to: "if (fields.amountMinor === null)" },
    ],
    caughtBy: {
      file: paymentWorkerTests,
      name: "an authorisation of another amount, order or currency is a fault and authorises nothing",
    },
  },
  // Watches
  {
    name: "sends nothing on a new watch until its order changes",
    file: "services/order/watch.ts",
    changes: [{ from: "for (let waitMs = 0; ;", to: "for (let waitMs = options.heartbeatIntervalMs; ;" }],
    caughtBy: { file: orderApiTests, name: "gets a heartbeat at once and then the next version over gRPC" },
  },
  {
    name: "reads the order of each new watcher by itself",
    file: "services/order/order-reader.ts",
    changes: [{ from: "sizeMax: groupSizeMax,", to: "sizeMax: 1," }],
    caughtBy: {
      file: orderApiTests,
      name: "5,000 watchers that come at once are read in few statements, and take no connection from PlaceOrder",
    },
  },
  {
    name: "reads for watchers on PlaceOrder's connections",
    file: "services/order/api.ts",
    changes: [
      {
        from: "createOrderWatch({ database: databases.reads,",
        to: "createOrderWatch({ database: databases.placements,",
      },
    ],
    caughtBy: {
      file: orderApiTests,
      name: "5,000 watchers that come at once are read in few statements, and take no connection from PlaceOrder",
    },
  },
  {
    name: "redelivers an event under a key that the database takes for another order's",
    file: "relay/inbox/inbox.ts",
    changes: [{ from: "requireFittingKey(envelope);", to: "" }],
    caughtBy: {
      file: parkingTests,
      name: "an event whose key ends with a blank has no effect at a redelivery either: to the database, it is another order's key",
    },
  },
  // Sessions and rights
  {
    name: "lets a frozen process keep its locks",
    file: "services/kit/sessions.ts",
    changes: [
      {
        from: "{ inTransactionSeconds: 6, sessionSeconds: 60 }",
        to: "{ inTransactionSeconds: 60, sessionSeconds: 60 }",
      },
    ],
    caughtBy: {
      file: "services/inventory/frozen.int.test.ts",
      name: "when an instance freezes in the middle of a batch, another goes on within 15 s; woken again, it does no harm",
    },
  },
  {
    name: "limits the time of a statement only once the statements before it are answered",
    file: "services/kit/sessions.ts",
    changes: [
      {
        from: "connection.query({ sql, values: values as unknown[] }",
        to: "connection.query({ sql, timeout: timeoutMs, values: values as unknown[] }",
      },
      { from: "if (isAnswered) return;", to: "if (isAnswered || timeoutMs > 0) return;" },
    ],
    caughtBy: {
      file: sessionTests,
      name: "a statement behind one without an answer fails in time too, and the pool goes on",
    },
  },
  {
    name: "leaves sql_mode to the server",
    file: "services/kit/sessions.ts",
    changes: [
      { from: "'+00:00', sql_mode = '", to: "'+00:00', @unused = '" },
      { from: "missing.length + unsafe.length > 0", to: "missing.length > 99" },
    ],
    caughtBy: { file: sessionTests, name: "on a server in another sql_mode, values stay values and none is cut off" },
  },
  {
    name: "lets a service change the rows of its outbox",
    file: "services/stack/rights.ts",
    changes: [{ from: 'service: ["SELECT", "INSERT"],', to: "service: everyRight," }],
    caughtBy: {
      file: "services/stack/provision.int.test.ts",
      name: "every user may do with every table what the README says, and nothing else",
    },
  },
];
