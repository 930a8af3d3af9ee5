'use strict';

// Starts a hub in a new data directory, prints the path of the authority that it made, and stops it.

const { Nave } = require('./server');

async function main() {
  const nave = new Nave(process.argv[2]);
  await nave.start();
  process.stdout.write(`${nave.connection.caCertificate}\n`);
  await nave.stop();
}

main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(3);
});
