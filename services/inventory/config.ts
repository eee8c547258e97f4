import { readConfig, serviceSettings } from "../kit/config.ts";

/** Inventory's configuration. @throws ConfigError that names every faulty variable. */
export const readInventoryConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, serviceSettings("inventory", 9465));
