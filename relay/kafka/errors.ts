/** What can go wrong with a broker, and how a producer's errors are sorted. */
import { causesOf } from "../../services/kit/errors.ts";

/** The broker did not answer in time. It may have done what was asked, or do it later. */
export class BrokerTimeoutError extends Error {
  override readonly name = "BrokerTimeoutError";
  /** @param operation what took too long, as the subject of a sentence: "Sending". */
  constructor(operation: string, timeoutMs: number) {
    super(`${operation} took longer than ${timeoutMs} ms.`);
  }
}

/**
 * What went wrong when a producer connected or sent. It labels a metric, so the list is closed and short.
 *
 * - `too-large`: the records are too large. The only answer that blames the records.
 * - `no-topic`, `not-authorized`: the cluster or the configuration has to be corrected.
 * - `not-ready`: the broker is up, but cannot take records now.
 * - `unreachable`, `timeout`: no answer.
 * - `other`: anything that is not on the list.
 */
export type ProducerErrorKind =
  | "too-large"
  | "no-topic"
  | "not-authorized"
  | "not-ready"
  | "unreachable"
  | "timeout"
  | "other";

/**
 * Every code that a send is known to fail with: the broker's answers (org.apache.kafka.common.protocol.Errors, as
 * kafkajs spells them), the operating system's codes, and the names of the client's errors that have no code.
 */
const producerErrors: Readonly<Record<string, ProducerErrorKind>> = {
  // Larger than the topic's `max.message.bytes`, or than its `segment.bytes`.
  MESSAGE_TOO_LARGE: "too-large",
  RECORD_LIST_TOO_LARGE: "too-large",
  UNKNOWN_TOPIC_OR_PARTITION: "no-topic",
  INVALID_TOPIC_EXCEPTION: "no-topic",
  KafkaJSTopicMetadataNotLoaded: "no-topic",
  TOPIC_AUTHORIZATION_FAILED: "not-authorized",
  CLUSTER_AUTHORIZATION_FAILED: "not-authorized",
  SASL_AUTHENTICATION_FAILED: "not-authorized",
  UNSUPPORTED_SASL_MECHANISM: "not-authorized",
  ILLEGAL_SASL_STATE: "not-authorized",
  KafkaJSSASLAuthenticationError: "not-authorized",
  LEADER_NOT_AVAILABLE: "not-ready",
  NOT_LEADER_FOR_PARTITION: "not-ready",
  FENCED_LEADER_EPOCH: "not-ready",
  UNKNOWN_LEADER_EPOCH: "not-ready",
  REPLICA_NOT_AVAILABLE: "not-ready",
  BROKER_NOT_AVAILABLE: "not-ready",
  NOT_ENOUGH_REPLICAS: "not-ready",
  NOT_ENOUGH_REPLICAS_AFTER_APPEND: "not-ready",
  KAFKA_STORAGE_ERROR: "not-ready",
  KafkaJSMetadataNotLoaded: "not-ready",
  KafkaJSBrokerNotFound: "not-ready",
  NETWORK_EXCEPTION: "unreachable",
  ECONNREFUSED: "unreachable",
  ECONNRESET: "unreachable",
  EHOSTUNREACH: "unreachable",
  ENETUNREACH: "unreachable",
  ENOTFOUND: "unreachable",
  EAI_AGAIN: "unreachable",
  EPIPE: "unreachable",
  KafkaJSConnectionError: "unreachable",
  KafkaJSConnectionClosedError: "unreachable",
  KafkaJSNoBrokerAvailableError: "unreachable",
  REQUEST_TIMED_OUT: "timeout",
  ETIMEDOUT: "timeout",
  KafkaJSRequestTimeoutError: "timeout",
  KafkaJSTimeout: "timeout",
  BrokerTimeoutError: "timeout",
};

/** Sorts an error thrown by `openProducer` or `send`, by the first of its causes that is known. */
export function producerErrorOf(error: unknown): ProducerErrorKind {
  for (const it of causesOf(error)) {
    const { type, code } = it as Error & { readonly type?: unknown; readonly code?: unknown };
    for (const known of [type, code, it.name]) {
      const kind =
        typeof known === "string" && Object.hasOwn(producerErrors, known) ? producerErrors[known] : undefined;
      if (kind !== undefined) return kind;
    }
  }
  return "other";
}
