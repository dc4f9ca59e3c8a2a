-- What ended long ago is looked for and forgotten.
CREATE INDEX tasks_ended ON tasks (ended) WHERE settled = 1;
CREATE INDEX batches_ended ON batches (ended) WHERE settled = 1;
CREATE INDEX batch_items_tasks ON batch_items (task) WHERE task IS NOT NULL;
