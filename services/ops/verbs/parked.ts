/** The verbs about what the services could not handle. */
import { type Registry, toJson } from "@bufbuild/protobuf";
import { decodePayload, fromRecord } from "../../../proto/envelope.ts";
import type { ParkedEvent, ParkedKey } from "../../../relay/inbox/parking.ts";
import type { OperatedSource } from "../../../relay/operations/audit-log.ts";
import {
  countParkedKeys,
  findParkedKey,
  listParkedKeys,
  requestParkedReplay,
} from "../../../relay/operations/parked.ts";
import { listRowsMax } from "../../../relay/operations/undelivered.ts";
import { outboxTableName } from "../../../relay/tables.ts";
import { DomainError } from "../../kit/errors.ts";
import { formatList, formatTable, printable } from "../../kit/table.ts";
import type { OpsArguments, VerbUsage } from "../arguments.ts";
import {
  commandOf,
  errorLengthMax,
  type Fault,
  lookAtEach,
  type OpsContext,
  operandOf,
  requireNoFaults,
  requireOneOf,
  type Verb,
  withFaults,
} from "../context.ts";
import { counted, cut } from "../rendering.ts";

const serviceFlag = { service: "S" } as const;
const keyOperand = { name: "KEY" } as const;

/** The keys that the services have put aside. */
export const parked: Verb = {
  name: "parked",
  flags: serviceFlag,
  synopsis: "[--service S]",
  summary: "the keys of which a service could not handle an event, and how many wait behind it",
  async run(context, args) {
    const { keys, faults } = await parkedKeysOf(context, args);
    const isCut = keys.length === listRowsMax;
    const shown = formatTable(
      ["service", "key", "events", "parked at", "reason", "attempts", "replay", "error"],
      keys.map(({ service, ...parkedKey }) => [
        service,
        parkedKey.key,
        parkedKey.events,
        parkedKey.parkedAt.toISOString(),
        parkedKey.reason,
        parkedKey.attempts,
        parkedKey.replayRequestedAt === undefined ? null : "requested",
        cut(parkedKey.error, errorLengthMax),
      ]),
    );
    return {
      document: { keys, truncated: isCut, faults },
      text: withFaults(keys.length === 0 ? "No parked keys." : shown, faults),
      complete: faults.length === 0,
    };
  },
};

/** All of one key. */
export const parkedShow: Verb = {
  name: "parked show",
  operand: { ...keyOperand, required: true },
  flags: serviceFlag,
  synopsis: "KEY [--service S]",
  summary: "a parked key with its events in order, and their payloads",
  async run(context, args) {
    const key = operandOf(args);
    const { found, faults } = await lookAtEach(servicesOf(context, args), async (source) => ({
      source,
      shown: await findParkedKey(source.database, serviceOf(source), key),
    }));
    const registry = await context.openRegistry();
    const services = found.flatMap(({ value: { source, shown } }) => {
      if (shown === undefined) return [];
      const events = shown.events.map((event) => describe(event, registry));
      return [{ service: serviceOf(source), ...shown.key, waiting: events }];
    });
    if (services.length === 0) {
      requireNoFaults(faults);
      throw new DomainError("NOT_FOUND", `The key ${key} is not parked.`);
    }
    return {
      document: { services, faults },
      text: withFaults(services.map((it) => describeKey(it)).join("\n\n"), faults),
      complete: faults.length === 0,
    };
  },
};

/** Asks for another try. */
export const parkedReplay: Verb = {
  name: "parked replay",
  operand: { ...keyOperand, required: false },
  flags: { ...serviceFlag, all: true },
  synopsis: "KEY | --all [--service S]",
  summary: "asks the service to handle a parked key's events again, in order",
  async run(context, args) {
    requireOneOf(args, keyOperand.name);
    const key = args.has("all") ? undefined : operandOf(args);
    const { found, faults } = await lookAtEach(servicesOf(context, args), async (source) => ({
      source,
      keys: await keysToReplay(source, key),
    }));
    requireNoFaults(faults);
    const concerned = found.filter(({ value }) => value.keys > 0).map(({ value }) => value);
    const each = concerned.map(({ source, keys }) => `${serviceOf(source)} ${keys}`).join(", ");
    const total = concerned.reduce((sum, { keys }) => sum + keys, 0);
    if (total === 0 && key !== undefined) throw new DomainError("NOT_FOUND", `The key ${key} is not parked.`);
    if (total === 0) return { document: { requested: 0, services: {} }, text: "No parked keys: nothing to replay." };
    await context.confirm(
      key === undefined
        ? `Replay ${counted(total, "parked key")} (${each})?`
        : `Replay the parked key ${key} (${concerned.map(({ source }) => serviceOf(source)).join(", ")})?`,
    );
    const services: Record<string, number> = {};
    for (const { source } of concerned) {
      services[serviceOf(source)] = await requestParkedReplay(
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
          ? "It was asked for already; a service does so within seconds, while it runs."
          : `Asked for ${counted(requested, "key")}; see with "parked" what is left in some seconds.`,
    };
  },
};

async function keysToReplay(source: OperatedSource, key: string | undefined): Promise<number> {
  const service = serviceOf(source);
  if (key === undefined) return await countParkedKeys(source.database, service);
  return (await findParkedKey(source.database, service, key)) === undefined ? 0 : 1;
}

async function parkedKeysOf(
  context: OpsContext,
  args: OpsArguments<VerbUsage>,
): Promise<{
  readonly keys: readonly ({ readonly service: string } & ParkedKey)[];
  readonly faults: readonly Fault[];
}> {
  const { found, faults } = await lookAtEach(servicesOf(context, args), async (source) => {
    const keys = await listParkedKeys(source.database, serviceOf(source), { limit: listRowsMax });
    return keys.map((key) => ({ service: serviceOf(source), ...key }));
  });
  return { keys: found.flatMap(({ value }) => value), faults };
}

/** A service has its inbox beside its outbox, under the same name. */
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
  throw new DomainError("NOT_FOUND", `There is no service ${service}; there are ${names}.`);
}

interface DescribedEvent {
  readonly eventId: string;
  readonly type: string;
  readonly source: string;
  readonly partition: number;
  readonly offset: string;
  readonly occurredAt: Date | null;
  readonly error: string | null;
  /** The message, where the payload is one. */
  readonly payload: unknown;
  /** The payload as it was received, where it is none. */
  readonly payloadBase64: string | null;
}

function describe({ record, ...event }: ParkedEvent, registry: Registry): DescribedEvent {
  const { partition, offset, value } = record;
  const { eventId, type, source } = event;
  const read = readPayload(record, registry);
  return {
    eventId,
    type,
    source,
    partition,
    offset,
    occurredAt: event.occurredAt ?? null,
    error: event.error ?? null,
    payload: read ?? null,
    payloadBase64: read === undefined && value !== null ? Buffer.from(value).toString("base64") : null,
  };
}

/** Undefined where it does not decode: that may be why it is parked. */
function readPayload(record: ParkedEvent["record"], registry: Registry): unknown {
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
    ["replay requested at", parkedKey.replayRequestedAt?.toISOString() ?? null],
    ["error", parkedKey.error],
  ]);
  const events = parkedKey.waiting.map((event) => {
    const payload = event.payloadBase64 ?? JSON.stringify(event.payload, undefined, 2);
    const place = `${event.type} ${event.eventId} (partition ${event.partition}, offset ${event.offset})`;
    return printable(`${place}${event.error === null ? "" : `: ${event.error}`}\n${payload}`);
  });
  return [head, ...events].join("\n\n");
}
