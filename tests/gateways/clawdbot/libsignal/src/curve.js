exports.generateKeyPair = undefined;
exports.calculateAgreement = undefined;
exports.calculateSignature = undefined;
exports.verifySignature = undefined;
