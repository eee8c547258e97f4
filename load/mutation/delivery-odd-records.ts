/** Mutants of what reads records and commits offsets. */
import type { DeliveryMutant } from "./delivery-mutant.ts";

const consumerTests = "relay/inbox/consumer.int.test.ts";
const parkingTests = "relay/inbox/parking.int.test.ts";
const oddBatchTests = "relay/kafka/odd-batches.int.test.ts";

export const oddRecordMutants: readonly DeliveryMutant[] = [
  // Odd records
  {
    name: "reads a null header as text",
    file: "proto/envelope.ts",
    changes: [
      { from: "find((it) => it != null) : value;", to: "at(0) : value;" },
      {
        from: 'return typeof first === "string" ? first : undefined;',
        to: 'return typeof first === "string" || first === undefined ? first : decoder.decode(first as never);',
      },
    ],
    caughtBy: {
      file: consumerTests,
      name: "odd records of another client on every partition stop nothing: events before, between and after them are handled",
    },
  },
  {
    name: "lets an error at one record fail its batch",
    file: "relay/inbox/rows.ts",
    changes: [
      {
        from: "const decodeError = asUndecodable(error);",
        to: "if (!(error instanceof UndecodableRecordError)) throw error;\n    const decodeError = error;",
      },
    ],
    caughtBy: {
      file: "relay/inbox/rows.unit.test.ts",
      name: "whatever is thrown while a record is read is the fault of that record",
    },
  },
  {
    name: "counts records that do not decode as failures of the consumer",
    file: "relay/inbox/attempt.ts",
    changes: [
      {
        from: "const keys = new Set(parkedKeys);",
        to: "const keys = new Set(parkedKeys);\n  const bad = entries.find((it) => it.decodeError !== undefined && !keys.has(it.identity.key));\n  if (failure === undefined && bad !== undefined) throw bad.decodeError;",
      },
    ],
    caughtBy: {
      file: parkingTests,
      name: "a hundred undecodable records in a row are parked at once, stop nothing, and leave the events around them alone",
    },
  },
  {
    name: "handles an event under the key of another order",
    file: "relay/inbox/rows.ts",
    changes: [{ from: "if (key !== envelope.aggregateId) {", to: 'if (key === "") {' }],
    caughtBy: {
      file: parkingTests,
      name: "an event that belongs to another key than its record is parked under the record's key, and a redelivery does not handle it",
    },
  },
  {
    name: "skips a batch of records that it cannot read",
    file: "relay/kafka/consumer.ts",
    changes: [
      {
        from: "options.unreadable.add({ partition, offset: fetchedOffset, endOffset, error }, pause);",
        to: "resolveOffset(fetchedOffset);",
      },
    ],
    caughtBy: {
      file: oddBatchTests,
      name: "a partition that cannot be read is shown and waits, the others go on, and it goes on once its records are deleted",
    },
  },
  // Offsets
  {
    name: "lowers a committed offset when records are delivered again",
    file: "relay/kafka/offsets.ts",
    changes: [{ from: "if (before !== undefined && before > next && before <= BigInt(endOffset)) return;", to: "" }],
    caughtBy: {
      file: "relay/kafka/offsets.unit.test.ts",
      name: "an offset is never lowered by records that are delivered again",
    },
  },
  {
    name: "does not commit past the markers of a transaction",
    file: "relay/kafka/consumer.ts",
    changes: [{ from: "(isLast ? undefined : messages.at(-1)?.offset)", to: "messages.at(-1)?.offset" }],
    caughtBy: {
      file: oddBatchTests,
      name: "the markers of transactions are committed past, also where nothing else comes",
    },
  },
  {
    name: "waits for records that have expired",
    file: "services/order/topic-progress.ts",
    changes: [
      { from: "return offset < beginning ? beginning : offset;", to: "return offset < 0n ? beginning : offset;" },
    ],
    caughtBy: {
      file: "services/order/topic-progress.int.test.ts",
      name: "a group whose next records have expired is where the partition begins",
    },
  },
];
