/**
 * Mutants of the delivery code: deliberate mistakes in relay/, in Payment's calls of the gateway and in Order's watches, one at
 * a time, each with the test that must fail because of it. A mutant that survives is a mistake that the tests would not notice.
 */

import { databaseMutants } from "./delivery-database.ts";
import type { DeliveryMutant } from "./delivery-mutant.ts";
import { oddRecordMutants } from "./delivery-odd-records.ts";
import { relayMutants } from "./delivery-relay.ts";

const consumerTests = "relay/inbox/consumer.int.test.ts";
const parkingTests = "relay/inbox/parking.int.test.ts";
const paymentWorkerTests = "services/payment/worker.int.test.ts";
const orderApiTests = "services/order/api.int.test.ts";

export const deliveryMutants: readonly DeliveryMutant[] = [
  ...relayMutants,
  ...databaseMutants,
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
    caughtBy: { file: parkingTests, name: "an event that succeeds only at its last attempt is not parked" },
  },
  {
    name: "handles an event that is in the inbox already",
    file: "relay/inbox/rows.ts",
    changes: [{ from: "entries.filter(({ identity }) => ours.has(identity.eventId))", to: "entries" }],
    caughtBy: {
      file: consumerTests,
      name: "events are handled in batches, and each has its effect once, even if it is delivered again",
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
  ...oddRecordMutants,
];
