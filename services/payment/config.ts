import { hostPorts, port, processSettings, readConfig, url } from "../kit/config.ts";

/** Payment's configuration. @throws ConfigError that names every faulty variable. */
export const readPaymentConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...processSettings,
    instance: { ...processSettings.instance, fallback: "payment" },
    healthPort: port("HEALTH_PORT", 9466),
    databaseUrl: url("DATABASE_URL", ["mysql:"]),
    gatewayUrl: url("GATEWAY_URL", ["http:", "https:"], "http://127.0.0.1:8090"),
    relayHints: hostPorts("RELAY_HINTS", "127.0.0.1:9470"),
  });
