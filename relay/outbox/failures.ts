/**
 * The one place where the relay sorts what went wrong. Whether an event is ever given up depends on this alone, so the
 * list of what counts against a row is closed, and everything that is not on it is somebody's outage.
 */
import { SchemaBehindError, UnencodablePayloadError } from "../../proto/envelope.ts";
import { causesOf } from "../../services/kit/errors.ts";

/**
 * - `outage`: of the database or the broker. Back off and try again; no row is to blame.
 * - `poison`: this row can never be published as it stands.
 * - `schema-behind`: the row is newer than this relay's schema. It waits for a newer relay.
 */
export type FailureKind = "outage" | "poison" | "schema-behind";

/**
 * What a producer met with, for a metric: a closed list, so that it stays a few time series.
 *
 * - `too-large`: the records. The only answer that blames them.
 * - `no-topic`, `not-authorized`: somebody has to mend the cluster, or the configuration.
 * - `not-ready`: the broker is there, and cannot take records now.
 * - `unreachable`, `timeout`: there is no answer.
 * - `other`: whatever is not on the list.
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
 * Every code that a send is known to fail with: the broker's answers (org.apache.kafka.common.protocol.Errors, in
 * kafkajs' spelling), the operating system's, and the names of what the client throws where there is no code.
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

/** Sorts an error. Unknown is an outage. */
export function kindOf(error: unknown): FailureKind {
  for (const it of causesOf(error)) {
    if (it instanceof UnencodablePayloadError) return "poison";
    if (it instanceof SchemaBehindError) return "schema-behind";
  }
  return producerErrorOf(error) === "too-large" ? "poison" : "outage";
}

/** Sorts what opening a producer or sending threw. */
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
