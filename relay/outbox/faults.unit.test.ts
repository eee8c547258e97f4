import { describe, expect, test } from "bun:test";
import { SchemaBehindError, UnencodablePayloadError } from "../../proto/envelope.ts";
import { type Fault, faultOf } from "./faults.ts";

/** As the client libraries throw: an Error with fields of their own, maybe wrapped. */
const thrown = (name: string, fields: Readonly<Record<string, unknown>>, cause?: Error) =>
  Object.assign(new Error(name, cause === undefined ? {} : { cause }), { name, ...fields });
const answer = (type: string, code: number, retriable = false) => thrown("ProtocolError", { type, code, retriable });
const database = (code: string, errno: number) => thrown("Error", { code, errno, sqlState: "HY000" });

const table: readonly (readonly [string, unknown, Fault | "outage"])[] = [
  ["the broker: record too large", answer("MESSAGE_TOO_LARGE", 10), "poison"],
  ["the broker: record list too large", answer("RECORD_LIST_TOO_LARGE", 18), "poison"],
  [
    "the same, wrapped by the client",
    thrown("NonRetriableError", { retriable: false }, answer("MESSAGE_TOO_LARGE", 10)),
    "poison",
  ],
  ["a payload that is not JSON", new UnencodablePayloadError("not JSON"), "poison"],
  ["a type that the schema lacks", new SchemaBehindError("no type"), "schema-behind"],

  ["a refused connection", thrown("ConnectionError", { code: "ECONNREFUSED", retriable: true }), "outage"],
  [
    "retries exceeded",
    thrown("NumberOfRetriesExceeded", { retriable: false }, thrown("ConnectionError", {})),
    "outage",
  ],
  ["a request that timed out", thrown("RequestTimeoutError", { retriable: true }), "outage"],
  ["a send that took too long", new Error("Sending took longer than 2000 ms."), "outage"],
  ["the topic is gone", answer("UNKNOWN_TOPIC_OR_PARTITION", 3, true), "outage"],
  ["not the leader", answer("NOT_LEADER_FOR_PARTITION", 6, true), "outage"],
  ["too few replicas", answer("NOT_ENOUGH_REPLICAS", 19, true), "outage"],
  ["no right to the topic", answer("TOPIC_AUTHORIZATION_FAILED", 29), "outage"],
  ["the broker's disk", answer("KAFKA_STORAGE_ERROR", 56, true), "outage"],
  ["a record that the broker finds invalid", answer("INVALID_RECORD", 87), "outage"],
  ["the database refuses", database("ECONNREFUSED", -111), "outage"],
  ["the database's table is gone", database("ER_NO_SUCH_TABLE", 1146), "outage"],
  ["a right revoked", database("ER_TABLEACCESS_DENIED_ERROR", 1142), "outage"],
  ["read only", database("ER_OPTION_PREVENTS_STATEMENT", 1290), "outage"],
  ["a deadlock", database("ER_LOCK_DEADLOCK", 1213), "outage"],
  ["a mistake of ours", new TypeError("undefined is not a function"), "outage"],
  ["no error at all", "thrown", "outage"],
  ["nothing", undefined, "outage"],
];

describe("an error is", () => {
  for (const [what, error, kind] of table)
    test(`${kind}: ${what}`, () => expect(faultOf(error) ?? "outage").toBe(kind));
});

test("a chain of causes that goes round in a circle comes to an end", () => {
  const error = new Error("round");
  error.cause = error;
  expect(faultOf(error)).toBeUndefined();
});
