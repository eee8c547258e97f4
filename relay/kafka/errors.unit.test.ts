import { describe, expect, test } from "bun:test";
import { faultOf } from "../outbox/faults.ts";
import { BrokerTimeoutError, type ProducerErrorKind, producerErrorOf } from "./errors.ts";

/** An Error as kafkajs throws it: with extra fields, perhaps wrapped in another. */
const thrown = (name: string, fields: Readonly<Record<string, unknown>>, cause?: Error) =>
  Object.assign(new Error(name, cause === undefined ? {} : { cause }), { name, ...fields });
const answer = (type: string, code: number) => thrown("KafkaJSProtocolError", { type, code, retriable: false });

/** The broker's answers by kind. All other answers that kafkajs knows are `other`. */
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

describe("answers of the broker", async () => {
  const source = await Bun.file(Bun.resolveSync("kafkajs/src/protocol/error.js", import.meta.dir)).text();
  const types = [...source.matchAll(/type: '([A-Z_]+)'/g)].map((match) => match[1] ?? "");
  const kindOfAnswer = new Map(
    Object.entries(answers).flatMap(([kind, codes]) => codes.map((code) => [code, kind] as const)),
  );
  test("the answers of this test are known to kafkajs", () => {
    expect(types.length).toBeGreaterThan(80);
    expect([...kindOfAnswer.keys()].filter((code) => !types.includes(code))).toEqual([]);
  });
  for (const [index, type] of types.entries()) {
    const expected = (kindOfAnswer.get(type) ?? "other") as ProducerErrorKind;
    test(`the broker's answer ${type} is ${expected}, and ${expected === "too-large" ? "poison" : "an outage"}`, () => {
      const wrapped = thrown("KafkaJSNumberOfRetriesExceeded", { retriable: false }, answer(type, index));
      expect([producerErrorOf(answer(type, index)), producerErrorOf(wrapped)]).toEqual([expected, expected]);
      expect(faultOf(wrapped)).toBe(expected === "too-large" ? "poison" : undefined);
    });
  }
});

const withoutAnswer: readonly (readonly [string, Error, ProducerErrorKind])[] = [
  ["the port refuses connections", thrown("KafkaJSConnectionError", { code: "ECONNREFUSED" }), "unreachable"],
  ["unknown host", thrown("Error", { code: "ENOTFOUND" }), "unreachable"],
  ["name server does not answer", thrown("Error", { code: "EAI_AGAIN" }), "unreachable"],
  ["no route to the host", thrown("Error", { code: "EHOSTUNREACH" }), "unreachable"],
  ["no route to the network", thrown("Error", { code: "ENETUNREACH" }), "unreachable"],
  ["connection reset", thrown("Error", { code: "ECONNRESET" }), "unreachable"],
  ["broken pipe", thrown("Error", { code: "EPIPE" }), "unreachable"],
  ["connection closed", thrown("KafkaJSConnectionClosedError", {}), "unreachable"],
  ["connection failed", thrown("KafkaJSConnectionError", {}), "unreachable"],
  ["no broker available", thrown("KafkaJSNoBrokerAvailableError", {}), "unreachable"],
  ["connecting timed out", thrown("Error", { code: "ETIMEDOUT" }), "timeout"],
  ["request timed out", thrown("KafkaJSRequestTimeoutError", {}), "timeout"],
  ["client timed out", thrown("KafkaJSTimeout", {}), "timeout"],
  ["send timed out", new BrokerTimeoutError("Sending", 2_000), "timeout"],
  ["wrong credentials", thrown("KafkaJSSASLAuthenticationError", {}), "not-authorized"],
  ["no metadata of the topic", thrown("KafkaJSTopicMetadataNotLoaded", {}), "no-topic"],
  ["no metadata yet", thrown("KafkaJSMetadataNotLoaded", {}), "not-ready"],
  ["unknown leader", thrown("KafkaJSBrokerNotFound", {}), "not-ready"],
  ["a bug of ours", new TypeError("undefined is not a function"), "other"],
  ["a code that every object has as a property", thrown("toString", { code: "constructor" }), "other"],
];

describe("errors without an answer", () => {
  for (const [what, error, kind] of withoutAnswer) {
    test(`the error "${what}" is ${kind}, and an outage`, () => {
      expect([producerErrorOf(error), faultOf(error)]).toEqual([kind, undefined]);
    });
  }
});
