/** Where `audit` and `stuck` read. */
import type { OperatedSource } from "../../../relay/operations/source.ts";
import { type HostPort, hostPorts, readConfig, url } from "../../kit/config.ts";
import { DomainError } from "../../kit/errors.ts";
import { silentLogger } from "../../kit/log.ts";
import { byService } from "../../stack/services.ts";
import { readStackSettings } from "../../stack/settings.ts";
import { readStackFile } from "../../stack/stack-file.ts";
import type { Databases } from "./books.ts";
import type { AuditSources } from "./reader.ts";

type Environment = Readonly<Record<string, string | undefined>>;

/** The services' databases among an operator's sources. @throws DomainError naming a service without a source. */
export function databasesOf(sources: readonly OperatedSource[]): Databases {
  return byService((service) => find(sources, service).database);
}

function find(sources: readonly OperatedSource[], name: string): OperatedSource {
  const source = sources.find((it) => it.name === name);
  if (source === undefined)
    throw new DomainError("NOT_FOUND", `There is no source ${name}. Audit and stuck need a source for every service.`);
  return source;
}

/**
 * The sources of an audit: the local stack, or, if `OPS_SOURCES` is set, `KAFKA_BROKERS` and `GATEWAY_URL`.
 * @throws ConfigError naming each wrong variable; Error if there is no local stack.
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
