import { hostPorts, port, processSettings, readConfig, url } from "../kit/config.ts";

/** Inventory's configuration. @throws ConfigError that names every faulty variable. */
export const readInventoryConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...processSettings,
    instance: { ...processSettings.instance, fallback: "inventory" },
    healthPort: port("HEALTH_PORT", 9465),
    databaseUrl: url("DATABASE_URL", ["mysql:"]),
    relayHints: hostPorts("RELAY_HINTS", "127.0.0.1:9470"),
  });
