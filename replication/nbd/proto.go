package nbd

// Numbers of the NBD protocol, named as in its proto.md.
const (
	magicServer  = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption  = 0x49484156454f5054 // "IHAVEOPT"
	magicReply   = 0x0003e889045565a9 // of an option
	magicRequest = 0x25609513
	magicSimple  = 0x67446698
	magicChunk   = 0x668e33ef // of a structured reply

	flagFixedNewstyle = 1 << 0 // handshake flags, both ways
	flagNoZeroes      = 1 << 1

	optExportName      = 1
	optAbort           = 2
	optList            = 3
	optStartTLS        = 5
	optInfo            = 6
	optGo              = 7
	optStructuredReply = 8
	optListMeta        = 9
	optSetMeta         = 10

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMeta        = 4
	repErrUnsup    = 1<<31 | 1
	repErrInvalid  = 1<<31 | 3
	repErrPlatform = 1<<31 | 4
	repErrUnknown  = 1<<31 | 6
	repErrTooBig   = 1<<31 | 9

	infoExport      = 0
	infoName        = 1
	infoDescription = 2
	infoBlockSize   = 3

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisc        = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdCache       = 5
	cmdWriteZeroes = 6
	cmdBlockStatus = 7

	cmdFlagFUA      = 1 << 0
	cmdFlagNoHole   = 1 << 1
	cmdFlagDF       = 1 << 2
	cmdFlagReqOne   = 1 << 3
	cmdFlagFastZero = 1 << 4

	// transmissionFlags: HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_CACHE,
	// SEND_FAST_ZERO. Not ROTATIONAL, READ_ONLY, SEND_RESIZE. SEND_DF comes with structured replies.
	transmissionFlags = 1<<0 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<8 | 1<<10 | 1<<11
	sendDF            = 1 << 7

	chunkDone    = 1 << 0 // flag of the last chunk of a reply
	chunkNone    = 0
	chunkData    = 1
	chunkStatus  = 5
	chunkError   = 1<<15 | 1
	chunkErrorAt = 1<<15 | 2
)

// errno is an error of the protocol; the numbers are Linux's, on every system.
type errno uint32

const (
	eOK     errno = 0
	ePERM   errno = 1
	eIO     errno = 5
	eNOMEM  errno = 12
	eINVAL  errno = 22
	eNOSPC  errno = 28
	eNOTSUP errno = 95
)
