'use strict';

// Certificates, made by openssl when they are needed.

const { execFileSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { remember } = require('./secrets');

function openssl(directory, ...args) {
  execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
}

class Certificate {
  constructor(cert, key, issuer) {
    this.cert = cert;
    this.key = key;
    this.issuer = issuer;
  }

  /** This and its issuers without the root: what a device presents. */
  get chain() {
    let text = this.cert;
    for (let link = this.issuer; link?.issuer; link = link.issuer) {
      text += link.cert;
    }
    return text;
  }

  thumbprint(algorithm = 'sha1') {
    const { raw } = new crypto.X509Certificate(this.cert);
    return crypto.createHash(algorithm).update(raw).digest('hex').toUpperCase();
  }
}

function make(commonName, issuer, ca, days = 30) {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'nave-e2e-pki-'));
  const file = (name) => path.join(directory, name);
  try {
    openssl(directory, 'ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', 'key.pem');
    openssl(directory, 'req', '-new', '-key', 'key.pem', '-subj', `/CN=${commonName}`, '-out', 'request.pem');
    fs.writeFileSync(file('extensions'), ca
      ? 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'
      : 'basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectKeyIdentifier=hash\n');
    const signer = issuer ? ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'] : ['-signkey', 'key.pem'];
    if (issuer) {
      fs.writeFileSync(file('ca.pem'), issuer.cert);
      fs.writeFileSync(file('ca.key'), issuer.key);
    }
    openssl(directory, 'x509', '-req', '-in', 'request.pem', ...signer, '-days', String(days), '-sha256',
      '-extfile', 'extensions', '-out', 'cert.pem');
    return new Certificate(fs.readFileSync(file('cert.pem'), 'utf8'), remember(fs.readFileSync(file('key.pem'), 'utf8')), issuer);
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

module.exports = {
  selfSigned: (commonName) => make(commonName, undefined, false),
  root: () => make('Nave test root', undefined, true),
  intermediate: (issuer) => make('Nave test intermediate', issuer, true),
  leaf: (issuer, commonName) => make(commonName, issuer, false),
};
