import { describe, expect, test } from "bun:test";
import { SchemaBehindError, UnencodablePayloadError } from "../../proto/envelope.ts";
import { BrokerTimeoutError } from "../kafka/kafka.ts";
import { type FailureKind, kindOf, type ProducerErrorKind, producerErrorOf } from "./failures.ts";

/** As the client libraries throw: an Error with fields of their own, maybe wrapped. */
const thrown = (name: string, fields: Readonly<Record<string, unknown>>, cause?: Error) =>
  Object.assign(new Error(name, cause === undefined ? {} : { cause }), { name, ...fields });
const answer = (type: string, code: number, retriable = false) =>
  thrown("KafkaJSProtocolError", { type, code, retriable });
const database = (code: string, errno: number) => thrown("Error", { code, errno, sqlState: "HY000" });

const table: readonly (readonly [string, unknown, FailureKind])[] = [
  ["the broker: record too large", answer("MESSAGE_TOO_LARGE", 10), "poison"],
  ["the broker: record list too large", answer("RECORD_LIST_TOO_LARGE", 18), "poison"],
  [
    "the same, wrapped by kafkajs",
    thrown("KafkaJSNonRetriableError", { retriable: false }, answer("MESSAGE_TOO_LARGE", 10)),
    "poison",
  ],
  ["a payload that is not JSON", new UnencodablePayloadError("not JSON"), "poison"],
  ["a type that the schema lacks", new SchemaBehindError("no type"), "schema-behind"],

  ["a refused connection", thrown("KafkaJSConnectionError", { code: "ECONNREFUSED", retriable: true }), "outage"],
  [
    "retries exceeded",
    thrown("KafkaJSNumberOfRetriesExceeded", { retriable: false }, thrown("KafkaJSConnectionError", {})),
    "outage",
  ],
  ["a request that timed out", thrown("KafkaJSRequestTimeoutError", { retriable: true }), "outage"],
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
  for (const [what, error, kind] of table) test(`${kind}: ${what}`, () => expect(kindOf(error)).toBe(kind));
});

/** Every code of Kafka's that kafkajs knows, and what a send meets with in it. Those not named are `other`. */
const answers: Readonly<Record<Exclude<ProducerErrorKind, "other">, readonly string[]>> = {
  "too-large": ["MESSAGE_TOO_LARGE", "RECORD_LIST_TOO_LARGE"],
  "no-topic": ["UNKNOWN_TOPIC_OR_PARTITION", "INVALID_TOPIC_EXCEPTION"],
  "not-authorized": [
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
    "SASL_AUTHENTICATION_FAILED",
    "UNSUPPORTED_SASL_MECHANISM",
    "ILLEGAL_SASL_STATE",
  ],
  "not-ready": [
    "LEADER_NOT_AVAILABLE",
    "NOT_LEADER_FOR_PARTITION",
    "FENCED_LEADER_EPOCH",
    "UNKNOWN_LEADER_EPOCH",
    "REPLICA_NOT_AVAILABLE",
    "BROKER_NOT_AVAILABLE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "KAFKA_STORAGE_ERROR",
  ],
  unreachable: ["NETWORK_EXCEPTION"],
  timeout: ["REQUEST_TIMED_OUT"],
};

describe("the broker's answer", async () => {
  const source = await Bun.file(Bun.resolveSync("kafkajs/src/protocol/error.js", import.meta.dir)).text();
  const types = [...source.matchAll(/type: '([A-Z_]+)'/g)].map((match) => match[1] ?? "");
  const kindOfAnswer = new Map(
    Object.entries(answers).flatMap(([kind, codes]) => codes.map((code) => [code, kind] as const)),
  );
  test("is one of those that there are", () => {
    expect(types.length).toBeGreaterThan(80);
    expect([...kindOfAnswer.keys()].filter((code) => !types.includes(code))).toEqual([]);
  });
  for (const [index, type] of types.entries()) {
    const expected = (kindOfAnswer.get(type) ?? "other") as ProducerErrorKind;
    test(`${type} is ${expected}, and ${expected === "too-large" ? "poison" : "an outage"}`, () => {
      const wrapped = thrown("KafkaJSNumberOfRetriesExceeded", { retriable: false }, answer(type, index));
      expect([producerErrorOf(answer(type, index)), producerErrorOf(wrapped)]).toEqual([expected, expected]);
      expect(kindOf(wrapped)).toBe(expected === "too-large" ? "poison" : "outage");
    });
  }
});

const withoutAnswer: readonly (readonly [string, Error, ProducerErrorKind])[] = [
  ["nobody listens", thrown("KafkaJSConnectionError", { code: "ECONNREFUSED" }), "unreachable"],
  ["the host is unknown", thrown("Error", { code: "ENOTFOUND" }), "unreachable"],
  ["the name service does not answer", thrown("Error", { code: "EAI_AGAIN" }), "unreachable"],
  ["no way to the host", thrown("Error", { code: "EHOSTUNREACH" }), "unreachable"],
  ["no way to the network", thrown("Error", { code: "ENETUNREACH" }), "unreachable"],
  ["the connection was reset", thrown("Error", { code: "ECONNRESET" }), "unreachable"],
  ["the connection is broken", thrown("Error", { code: "EPIPE" }), "unreachable"],
  ["the connection was closed", thrown("KafkaJSConnectionClosedError", {}), "unreachable"],
  ["no connection at all", thrown("KafkaJSConnectionError", {}), "unreachable"],
  ["none of the brokers is there", thrown("KafkaJSNoBrokerAvailableError", {}), "unreachable"],
  ["the connection takes too long", thrown("Error", { code: "ETIMEDOUT" }), "timeout"],
  ["the request takes too long", thrown("KafkaJSRequestTimeoutError", {}), "timeout"],
  ["the client waited too long", thrown("KafkaJSTimeout", {}), "timeout"],
  ["the send takes too long", new BrokerTimeoutError("Sending took longer than 2000 ms."), "timeout"],
  ["wrong credentials", thrown("KafkaJSSASLAuthenticationError", {}), "not-authorized"],
  ["the topic has no metadata", thrown("KafkaJSTopicMetadataNotLoaded", {}), "no-topic"],
  ["there is no metadata yet", thrown("KafkaJSMetadataNotLoaded", {}), "not-ready"],
  ["the leader is unknown", thrown("KafkaJSBrokerNotFound", {}), "not-ready"],
  ["a mistake of ours", new TypeError("undefined is not a function"), "other"],
  ["a name that every object has", thrown("toString", { code: "constructor" }), "other"],
];

describe("with no answer", () => {
  for (const [what, error, kind] of withoutAnswer) {
    test(`${what}: ${kind}, and an outage`, () => {
      expect([producerErrorOf(error), kindOf(error)]).toEqual([kind, "outage"]);
    });
  }
});

test("a chain of causes that goes round in a circle comes to an end", () => {
  const error = new Error("round");
  error.cause = error;
  expect(kindOf(error)).toBe("outage");
});
