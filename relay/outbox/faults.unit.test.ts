import { describe, expect, test } from "bun:test";
import { SchemaBehindError, UnencodablePayloadError } from "../../proto/envelope.ts";
import { type Fault, faultOf } from "./faults.ts";

/** An error as client libraries throw it: with fields of its own, and sometimes wrapped. */
const thrown = (name: string, fields: Readonly<Record<string, unknown>>, cause?: Error) =>
  Object.assign(new Error(name, cause === undefined ? {} : { cause }), { name, ...fields });
const answer = (type: string, code: number, retriable = false) => thrown("ProtocolError", { type, code, retriable });
const database = (code: string, errno: number) => thrown("Error", { code, errno, sqlState: "HY000" });

const table: readonly (readonly [string, unknown, Fault | "outage"])[] = [
  ["the broker's answer that a record is too large", answer("MESSAGE_TOO_LARGE", 10), "poison"],
  ["the broker's answer that a record list is too large", answer("RECORD_LIST_TOO_LARGE", 18), "poison"],
  [
    "the broker's answer that a record is too large, wrapped by the client",
    thrown("NonRetriableError", { retriable: false }, answer("MESSAGE_TOO_LARGE", 10)),
    "poison",
  ],
  ["a payload that is not JSON", new UnencodablePayloadError("not JSON"), "poison"],
  ["a type that the schema does not have", new SchemaBehindError("no type"), "schema-behind"],

  ["a refused connection", thrown("ConnectionError", { code: "ECONNREFUSED", retriable: true }), "outage"],
  [
    "a client that has used up its retries",
    thrown("NumberOfRetriesExceeded", { retriable: false }, thrown("ConnectionError", {})),
    "outage",
  ],
  ["a request that timed out", thrown("RequestTimeoutError", { retriable: true }), "outage"],
  ["a send that took too long", new Error("Sending took longer than 2000 ms."), "outage"],
  ["a topic that is gone", answer("UNKNOWN_TOPIC_OR_PARTITION", 3, true), "outage"],
  ["a broker that is not the leader", answer("NOT_LEADER_FOR_PARTITION", 6, true), "outage"],
  ["a partition with too few replicas", answer("NOT_ENOUGH_REPLICAS", 19, true), "outage"],
  ["a missing right to the topic", answer("TOPIC_AUTHORIZATION_FAILED", 29), "outage"],
  ["a failure of the broker's disk", answer("KAFKA_STORAGE_ERROR", 56, true), "outage"],
  ["a record that the broker calls invalid", answer("INVALID_RECORD", 87), "outage"],
  ["a database that refuses the connection", database("ECONNREFUSED", -111), "outage"],
  ["a table that is gone", database("ER_NO_SUCH_TABLE", 1146), "outage"],
  ["a revoked right to a table", database("ER_TABLEACCESS_DENIED_ERROR", 1142), "outage"],
  ["a read-only database", database("ER_OPTION_PREVENTS_STATEMENT", 1290), "outage"],
  ["a deadlock", database("ER_LOCK_DEADLOCK", 1213), "outage"],
  ["a TypeError", new TypeError("undefined is not a function"), "outage"],
  ["a thrown string", "thrown", "outage"],
  ["undefined", undefined, "outage"],
];

describe("faultOf", () => {
  for (const [what, error, kind] of table)
    test(`${what} counts as ${kind}`, () => expect(faultOf(error) ?? "outage").toBe(kind));
});

test("an error that is its own cause does not end in an endless loop", () => {
  const error = new Error("round");
  error.cause = error;
  expect(faultOf(error)).toBeUndefined();
});
