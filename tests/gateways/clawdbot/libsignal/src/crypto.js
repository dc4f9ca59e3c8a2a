exports.deriveSecrets = undefined;
exports.decrypt = undefined;
exports.encrypt = undefined;
exports.calculateMAC = undefined;
