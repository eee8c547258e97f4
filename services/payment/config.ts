import { readConfig, serviceSettings, url } from "../kit/config.ts";

/** Payment's configuration. @throws ConfigError that names every faulty variable. */
export const readPaymentConfig = (env: Readonly<Record<string, string | undefined>>) =>
  readConfig(env, {
    ...serviceSettings("payment", 9466),
    gatewayUrl: url("GATEWAY_URL", ["http:", "https:"], "http://127.0.0.1:8090"),
  });
