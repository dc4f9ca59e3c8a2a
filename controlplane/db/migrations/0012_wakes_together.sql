-- The first number of the request that a wake was sent in, while nobody knows whether that arrived: a kill may come
-- between. The same wakes go again then, in the same words.
ALTER TABLE wakes ADD COLUMN sent INTEGER;
