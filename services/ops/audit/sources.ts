import type { OperatedSource } from "../../../relay/operations/source.ts";
import { type HostPort, hostPorts, readConfig, url } from "../../kit/config.ts";
import { DomainError } from "../../kit/errors.ts";
import { silentLogger } from "../../kit/log.ts";
import { readStackSettings } from "../../stack/settings.ts";
import { readStackFile } from "../../stack/stack-file.ts";
import type { AuditSources } from "./audit.ts";
import { type Databases, services } from "./books.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** The three services' databases among an operator's sources. @throws DomainError that names one that is missing. */
export function databasesOf(sources: readonly OperatedSource[]): Databases {
  const [order, inventory, payment] = services.map((service) => find(sources, service).database);
  if (order === undefined || inventory === undefined || payment === undefined)
    throw new Error("There are three services.");
  return { order, inventory, payment };
}

function find(sources: readonly OperatedSource[], name: string): OperatedSource {
  const source = sources.find((it) => it.name === name);
  if (source === undefined) throw new DomainError("NOT_FOUND", `There is no source ${name}.`);
  return source;
}

/**
 * Where an auditor looks: the local stack, or with `OPS_SOURCES` what `KAFKA_BROKERS` and `GATEWAY_URL` say.
 * @throws ConfigError naming each faulty variable; Error when there is no stack.
 */
export async function readAuditSources(
  env: Environment,
  root: string,
  sources: readonly OperatedSource[],
): Promise<AuditSources> {
  const { brokers, gatewayUrl } = env.OPS_SOURCES === undefined ? await readLocalStack(env, root) : readGiven(env);
  return {
    databases: databasesOf(sources),
    kafka: { brokers, clientId: "audit", log: silentLogger },
    topic: find(sources, "order").topic,
    gatewayUrl,
  };
}

function readGiven(env: Environment): { readonly brokers: readonly HostPort[]; readonly gatewayUrl: string } {
  return readConfig(env, { brokers: hostPorts("KAFKA_BROKERS"), gatewayUrl: url("GATEWAY_URL", ["http:", "https:"]) });
}

async function readLocalStack(env: Environment, root: string): Promise<ReturnType<typeof readGiven>> {
  const stack = await readStackFile(readStackSettings(env, root).dataFolder);
  return readGiven({ KAFKA_BROKERS: stack.kafka.brokers.join(","), GATEWAY_URL: stack.gateway });
}
