/** The verbs about parked keys: keys with an event that a service could not handle. */
import { type Registry, toJson } from "@bufbuild/protobuf";
import { decodePayload, fromRecord } from "../../../proto/envelope.ts";
import type { ParkedEvent, ParkedKey } from "../../../relay/inbox/parked.ts";
import {
  countParkedKeys,
  findParkedKey,
  listParkedKeys,
  requestParkedRedelivery,
} from "../../../relay/operations/parked.ts";
import type { OperatedSource } from "../../../relay/operations/source.ts";
import { listRowsMax } from "../../../relay/operations/undelivered.ts";
import { outboxTableName } from "../../../relay/tables.ts";
import { DomainError } from "../../kit/errors.ts";
import { formatList, formatTable, printable } from "../../kit/table.ts";
import type { OpsArguments, VerbUsage } from "../arguments.ts";
import {
  commandOf,
  errorLengthMax,
  type OpsContext,
  operandOf,
  readEach,
  requireNoFailures,
  requireOperandOrAll,
  type SourceFailure,
  type Verb,
  withFailures,
} from "../context.ts";
import { counted, cut } from "../rendering.ts";

const serviceFlag = { service: "S" } as const;
const keyOperand = { name: "KEY" } as const;

export const parkedVerb: Verb = {
  name: "parked",
  flags: serviceFlag,
  synopsis: "[--service S]",
  summary: "keys with an event that a service could not handle",
  async run(context, args) {
    const { keys, failures } = await parkedKeysOf(context, args);
    const isCut = keys.length === listRowsMax;
    const shown = formatTable(
      ["service", "key", "events", "parked at", "reason", "attempts", "redelivery", "error"],
      keys.map(({ service, ...parkedKey }) => [
        service,
        parkedKey.key,
        parkedKey.events,
        parkedKey.parkedAt.toISOString(),
        parkedKey.reason,
        parkedKey.attempts,
        parkedKey.redeliveryRequestedAt === undefined ? null : "requested",
        cut(parkedKey.error, errorLengthMax),
      ]),
    );
    return {
      document: { keys, truncated: isCut, failures },
      text: withFailures(keys.length === 0 ? "No parked keys." : shown, failures),
      complete: failures.length === 0,
    };
  },
};

export const parkedShowVerb: Verb = {
  name: "parked show",
  operand: { ...keyOperand, required: true },
  flags: serviceFlag,
  synopsis: "KEY [--service S]",
  summary: "a parked key with its events and their payloads",
  async run(context, args) {
    const key = operandOf(args);
    const { results, failures } = await readEach(servicesOf(context, args), async (source) => ({
      source,
      parkedKey: await findParkedKey(source.database, serviceOf(source), key),
    }));
    const registry = await context.openRegistry();
    const services = results.flatMap(({ value: { source, parkedKey } }) => {
      if (parkedKey === undefined) return [];
      const events = parkedKey.events.map((event) => describe(event, registry));
      return [{ service: serviceOf(source), ...parkedKey.key, waiting: events }];
    });
    if (services.length === 0) {
      requireNoFailures(failures);
      throw new DomainError("NOT_FOUND", `The key ${key} is not parked.`);
    }
    return {
      document: { services, failures },
      text: withFailures(services.map((it) => describeKey(it)).join("\n\n"), failures),
      complete: failures.length === 0,
    };
  },
};

export const parkedRedeliverVerb: Verb = {
  name: "parked redeliver",
  formerName: "parked replay",
  operand: { ...keyOperand, required: false },
  flags: { ...serviceFlag, all: true },
  synopsis: "KEY | --all [--service S]",
  summary: "asks the service to handle a parked key's events again",
  async run(context, args) {
    requireOperandOrAll(args);
    const key = args.has("all") ? undefined : operandOf(args);
    const { results, failures } = await readEach(servicesOf(context, args), async (source) => ({
      source,
      keys: await countKeys(source, key),
    }));
    requireNoFailures(failures);
    const withKeys = results.filter(({ value }) => value.keys > 0).map(({ value }) => value);
    const each = withKeys.map(({ source, keys }) => `${serviceOf(source)} ${keys}`).join(", ");
    const total = withKeys.reduce((sum, { keys }) => sum + keys, 0);
    if (total === 0 && key !== undefined) throw new DomainError("NOT_FOUND", `The key ${key} is not parked.`);
    if (total === 0)
      return { document: { requested: 0, services: {} }, text: "Nothing to redeliver: there are no parked keys." };
    await context.confirm(
      key === undefined
        ? `Redeliver ${counted(total, "parked key")} (${each})?`
        : `Redeliver the parked key ${key} (${withKeys.map(({ source }) => serviceOf(source)).join(", ")})?`,
    );
    const services: Record<string, number> = {};
    for (const { source } of withKeys) {
      services[serviceOf(source)] = await requestParkedRedelivery(
        source.database,
        serviceOf(source),
        key === undefined ? "all" : { key },
        commandOf(context, args),
      );
    }
    const requested = Object.values(services).reduce((a, b) => a + b, 0);
    return {
      document: { requested, services },
      text:
        requested === 0
          ? "Redelivery is already requested. The service redelivers within seconds while it runs."
          : `Redelivery requested for ${counted(requested, "key")}. In a few seconds "parked" shows what is still parked.`,
    };
  },
};

async function countKeys(source: OperatedSource, key: string | undefined): Promise<number> {
  const service = serviceOf(source);
  if (key === undefined) return await countParkedKeys(source.database, service);
  return (await findParkedKey(source.database, service, key)) === undefined ? 0 : 1;
}

async function parkedKeysOf(
  context: OpsContext,
  args: OpsArguments<VerbUsage>,
): Promise<{
  readonly keys: readonly ({ readonly service: string } & ParkedKey)[];
  readonly failures: readonly SourceFailure[];
}> {
  const { results, failures } = await readEach(servicesOf(context, args), async (source) => {
    const keys = await listParkedKeys(source.database, serviceOf(source), { limit: listRowsMax });
    return keys.map((key) => ({ service: serviceOf(source), ...key }));
  });
  return { keys: results.flatMap(({ value }) => value), failures };
}

/** A service keeps its inbox and its outbox in one database, with its own name before the table names. */
function serviceOf({ outboxTable, name }: OperatedSource): string {
  const suffix = outboxTableName("");
  return outboxTable.endsWith(suffix) ? outboxTable.slice(0, -suffix.length) : name;
}

function servicesOf(context: OpsContext, args: OpsArguments<VerbUsage>): readonly OperatedSource[] {
  const service = args.text("service");
  if (service === undefined) return context.sources;
  const found = context.sources.filter((source) => serviceOf(source) === service);
  if (found.length > 0) return found;
  const names = context.sources.map(serviceOf).join(", ");
  throw new DomainError("NOT_FOUND", `There is no service ${service}. Services: ${names}.`);
}

interface DescribedEvent {
  readonly eventId: string;
  readonly type: string;
  readonly source: string;
  readonly partition: number;
  readonly offset: string;
  readonly occurredAt: Date | null;
  readonly error: string | null;
  /** The decoded message as JSON; null if it does not decode. */
  readonly payload: unknown;
  /** The payload as it was received, if it does not decode. */
  readonly payloadBase64: string | null;
}

function describe({ record, ...event }: ParkedEvent, registry: Registry): DescribedEvent {
  const { partition, offset, value } = record;
  const { eventId, type, source } = event;
  const decoded = payloadOf(record, registry);
  return {
    eventId,
    type,
    source,
    partition,
    offset,
    occurredAt: event.occurredAt ?? null,
    error: event.error ?? null,
    payload: decoded ?? null,
    payloadBase64: decoded === undefined && value !== null ? Buffer.from(value).toString("base64") : null,
  };
}

/** Undefined if it does not decode, which may be the reason for parking. */
function payloadOf(record: ParkedEvent["record"], registry: Registry): unknown {
  try {
    const message = decodePayload(fromRecord(record), registry);
    const schema = registry.getMessage(message.$typeName);
    return schema === undefined ? undefined : toJson(schema, message, { registry });
  } catch {
    return undefined;
  }
}

function describeKey(parkedKey: { readonly service: string; readonly waiting: readonly DescribedEvent[] } & ParkedKey) {
  const head = formatList([
    ["service", parkedKey.service],
    ["key", parkedKey.key],
    ["events", parkedKey.events],
    ["parked at", parkedKey.parkedAt.toISOString()],
    ["failed at", parkedKey.failedAt.toISOString()],
    ["failed event", parkedKey.eventId],
    ["reason", parkedKey.reason],
    ["attempts", parkedKey.attempts],
    ["redelivery requested at", parkedKey.redeliveryRequestedAt?.toISOString() ?? null],
    ["error", parkedKey.error],
  ]);
  const events = parkedKey.waiting.map((event) => {
    const payload = event.payloadBase64 ?? JSON.stringify(event.payload, undefined, 2);
    const place = `${event.type} ${event.eventId} (partition ${event.partition}, offset ${event.offset})`;
    return printable(`${place}${event.error === null ? "" : `: ${event.error}`}\n${payload}`);
  });
  return [head, ...events].join("\n\n");
}
