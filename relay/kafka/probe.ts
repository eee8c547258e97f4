/** Finds out whether the brokers can be reached. */
import { createConnection } from "node:net";
import type { HostPort } from "../../services/kit/config.ts";
import { openAdmin } from "./admin.ts";
import type { KafkaOptions } from "./client.ts";

const connectTimeoutMs = 1_000;

/**
 * True if a broker answers a request, false if none accepts connections.
 * @throws Error if one accepts connections and does not answer, as a broker that hangs does.
 */
export async function isBrokerAnswering(kafka: KafkaOptions): Promise<boolean> {
  if (!(await isBrokerListening(kafka.brokers))) return false;
  const admin = await openAdmin(kafka);
  await admin.close();
  return true;
}

/** Whether any broker accepts connections. Takes a second at most; the client takes much longer to find out. */
export async function isBrokerListening(brokers: readonly HostPort[]): Promise<boolean> {
  return (await Promise.all(brokers.map(isListening))).includes(true);
}

function isListening({ host, port }: HostPort): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ host, port, timeout: connectTimeoutMs });
    const settle = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.once("connect", () => settle(true));
    socket.once("timeout", () => settle(false));
    socket.once("error", () => settle(false));
  });
}
