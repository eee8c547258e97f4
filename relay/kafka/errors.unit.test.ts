import { describe, expect, test } from "bun:test";
import { faultOf } from "../outbox/faults.ts";
import { BrokerTimeoutError, type ProducerErrorKind, producerErrorOf } from "./errors.ts";

/** As kafkajs throws: an Error with fields of its own, maybe wrapped. */
const thrown = (name: string, fields: Readonly<Record<string, unknown>>, cause?: Error) =>
  Object.assign(new Error(name, cause === undefined ? {} : { cause }), { name, ...fields });
const answer = (type: string, code: number) => thrown("KafkaJSProtocolError", { type, code, retriable: false });

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
      expect(faultOf(wrapped)).toBe(expected === "too-large" ? "poison" : undefined);
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
  ["the send takes too long", new BrokerTimeoutError("Sending", 2_000), "timeout"],
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
      expect([producerErrorOf(error), faultOf(error)]).toEqual([kind, undefined]);
    });
  }
});
