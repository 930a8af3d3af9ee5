"""What the tests share: the hub as a process, the service side's REST, tokens, certificates, and the SDKs' clients."""
