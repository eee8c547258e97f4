ALTER TABLE `orders` ADD `compensating_since` timestamp(3);--> statement-breakpoint
UPDATE `orders` SET `compensating_since` = `updated_at` WHERE `status` = 'COMPENSATING';--> statement-breakpoint
CREATE INDEX `orders_compensating_since` ON `orders` (`compensating_since`);
