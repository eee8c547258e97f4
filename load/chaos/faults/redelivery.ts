/** Events that services get a second time: produced again, offsets set back, a group that rebalances in mid-batch. */
import { toRecord } from "../../../proto/envelope.ts";
import { eventRegistry, type ServiceName, sagaTopic } from "../../../proto/event-table.ts";
import { openProducer } from "../../../relay/kafka/producer.ts";
import { inboxTableName, outboxTableName } from "../../../relay/tables.ts";
import { serviceNames } from "../../../services/stack/services.ts";
import type { ChaosStack } from "../stack.ts";
import { type FaultKind, midRequest, missed, until, untilBusy, witnessed } from "./fault.ts";

const sendTimeoutMs = 5_000;
const producedAgainRows = 200;
/** More duplicates than a freeze alone causes. To wait for those of the whole topic could take too long. */
const duplicatesMin = 500;

const duplicates = ({ processes, links }: ChaosStack, service: ServiceName) =>
  processes.metricOf(links.clientsOf(service), "inbox_events_total", { outcome: "duplicate" });

export const producedAgain: FaultKind = {
  name: "records produced again",
  targets: serviceNames,
  async strike({ stack }, target) {
    const publisher = target as ServiceName;
    const notFinal = await untilBusy(stack);
    const before = await duplicates(stack, "order");
    const count = await produceAgain(stack, publisher);
    // Order's inbox holds every event of the topic.
    const dropped = async () => (await duplicates(stack, "order")) - before;
    if (!(await until(async () => (await dropped()) >= count, 20_000))) return missed("order dropped too few of them");
    return witnessed([
      [count, `events of ${publisher} again, newest first`],
      [await dropped(), "duplicates dropped by order"],
      [notFinal, "orders not final"],
    ]);
  },
};

/** Sends the newest published events of a service again, newest first. Returns how many. */
async function produceAgain({ sources, kafka }: ChaosStack, publisher: ServiceName): Promise<number> {
  const rows = await sources.databases[publisher].query<{
    id: string;
    aggregate_id: string;
    type: string;
    payload: string;
    headers: string | null;
    occurred_at: Date;
    seq: number | string;
  }>(
    `SELECT id, aggregate_id, type, payload, headers, occurred_at, event.seq FROM ${outboxTableName(publisher)} AS event
      WHERE status = 'PUBLISHED' ORDER BY event.seq DESC LIMIT ${producedAgainRows}`,
  );
  const encoding = { ceSource: `/shop/${publisher}`, encoding: "protobuf", registry: eventRegistry } as const;
  const records = rows.map(({ aggregate_id: aggregateId, occurred_at: occurredAt, seq, ...row }) =>
    toRecord({ ...row, aggregateId, occurredAt, seq: String(seq) }, encoding),
  );
  const producer = await openProducer({ ...kafka, timeoutMs: sendTimeoutMs });
  await producer.send(sagaTopic, records);
  await producer.close();
  return records.length;
}

export const offsetsBack: FaultKind = {
  name: "offsets set back",
  targets: serviceNames,
  async strike({ stack, random }, target) {
    const service = target as ServiceName;
    const notFinal = await untilBusy(stack);
    const before = await duplicates(stack, service);
    const link = await stack.links.pick(`${service} → mariadb`, random);
    const members = stack.links.clientsOf(service);
    const signalAll = (signal: "SIGSTOP" | "SIGCONT") => {
      for (const member of members) stack.processes.signal(member, signal);
    };
    const unanswered = await midRequest(link.proxy, random, () => signalAll("SIGSTOP"));
    if (unanswered === 0) return missed(`nothing unanswered on ${link.name}`);
    let isSet: boolean;
    try {
      // Kafka resets offsets of empty groups only. The frozen processes are its members until their sessions end.
      const reset = () => stack.admin.resetOffsets(service, sagaTopic);
      isSet = await until(
        () =>
          reset().then(
            () => true,
            () => false,
          ),
        20_000,
      );
    } finally {
      signalAll("SIGCONT");
    }
    const [inbox] = await stack.sources.databases[service].query<{ n: number }>(
      `SELECT COUNT(*) AS n FROM ${inboxTableName(service)}`,
    );
    const wanted = Math.min(Number(inbox?.n), duplicatesMin);
    const dropped = async () => (await duplicates(stack, service)) - before;
    if (!isSet) return missed("the group kept its members");
    if (!(await until(async () => (await dropped()) >= wanted, 30_000))) return missed("too few events came again");
    return witnessed([
      [await dropped(), "duplicates dropped so far"],
      [notFinal, "orders not final"],
    ]);
  },
};

export const rebalance: FaultKind = {
  name: "rebalance in mid-batch",
  targets: serviceNames,
  async strike({ stack, random }, target) {
    const service = target as ServiceName;
    const { processes } = stack;
    const notFinal = await untilBusy(stack);
    const spare = await stack.startSpare(service);
    let handled = 0;
    const hasHandled = await until(async () => {
      handled = await processes.metric(spare, "inbox_events_total", { outcome: "handled" });
      return handled > 0;
    }, 30_000);
    let leaving: Promise<void> | undefined;
    const link = stack.links.get(service, "mariadb");
    const unanswered = await midRequest(link.proxy, random, () => {
      leaving = processes.stop(spare);
    });
    await (leaving ?? processes.stop(spare));
    if (!hasHandled) return missed(`${spare} handled nothing`);
    return witnessed([
      [handled, `events handled by ${spare} before it left`],
      [unanswered, `unanswered on ${link.name} when it left`],
      [notFinal, "orders not final"],
    ]);
  },
};
