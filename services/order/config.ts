import { hostPorts, integer, port, processSettings, readConfig, url } from "../kit/config.ts";

/** Order's configuration. @throws ConfigError that names every faulty variable. */
export const readOrderConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...processSettings,
    instance: { ...processSettings.instance, fallback: "order" },
    httpPort: port("HTTP_PORT", 8080),
    grpcPort: port("GRPC_PORT", 8081),
    healthPort: port("HEALTH_PORT", 9464),
    databaseUrl: url("DATABASE_URL", ["mysql:"]),
    /** How long an order may stay undecided before it is given up. */
    deadlineMs: integer("ORDER_DEADLINE_MS", { fallback: 300_000, min: 100, max: 86_400_000 }),
    relayHints: hostPorts("RELAY_HINTS", "127.0.0.1:9470"),
  });
