-- Wireshark dissector for MRC. Made from the table of the wire format by `testbed mrc dissector`; do not edit.
-- Works with Wireshark 3.6 and newer, under Lua 5.2 to 5.4.

local READING = "2026-03-21/1"
local PORT = 4791
local EV_FLOW_LABEL, EV_FLOW_LABEL_IN = "high16", "both"
local ENUMERATIONS = {
    sack_m = {[0x00] = "NONE", [0x01] = "SKIP_ONCE", [0x02] = "ALWAYS_SKIP"},
    nack_reason = {[0x01] = "TRIMMED", [0x02] = "TRIMMED_LASTHOP", [0x06] = "NO_BITMAP", [0x07] = "NO_PKT_BUFFER", [0x0a] = "NO_RESOURCE", [0x0b] = "PSN_OOR_WINDOW", [0x19] = "UNEXP_EVENT"},
    endpoint_op = {[0x00] = "PORT_STATUS_UPDATE", [0x01] = "EV_PROBE"},
    cc_type = {[0x01] = "NSCC", [0x02] = "NACK"},
    tseth_ftype = {[0x01] = "TIMESTAMP"},
    syndrome = {[0x1f] = "ACK", [0x61] = "NAK_INVALID_REQUEST", [0x62] = "NAK_REMOTE_ACCESS", [0x63] = "NAK_REMOTE_OPERATIONAL"},
    opcode = {[0xc6] = "WRITE_FIRST", [0xc7] = "WRITE_MIDDLE", [0xc8] = "WRITE_LAST", [0xc9] = "WRITE_LAST_IMM", [0xca] = "WRITE_ONLY", [0xcb] = "WRITE_ONLY_IMM", [0xd1] = "ACK", [0xd8] = "ENDPOINT_REQUEST", [0xd9] = "ENDPOINT_RESPONSE", [0xdc] = "SACK", [0xdd] = "NACK", [0xde] = "PROBE"},
}
local HEADERS = {
    BTH = {bytes = 12, fields = {
        {name = "opcode", offset = 0, bits = 8, hex = true, names = "opcode", meaning = "what the packet is"},
        {name = "m", offset = 8, bits = 1, meaning = "migration request of RoCEv2; sent as 1"},
        {name = "se", offset = 9, bits = 1, meaning = "solicited event"},
        {name = "pad", offset = 10, bits = 2, meaning = "payload bytes added to fill a word"},
        {name = "tver", offset = 12, bits = 4, meaning = "transport version"},
        {name = "p_key", offset = 16, bits = 16, hex = true, meaning = "partition"},
        {name = "var_res", offset = 32, bits = 8, meaning = "variant, masked by the ICRC"},
        {name = "dqp", offset = 40, bits = 24, hex = true, meaning = "destination queue pair"},
        {name = "a", offset = 64, bits = 1, meaning = "acknowledgement request; asks for a SACK"},
        {name = "r", offset = 65, bits = 1, meaning = "reserved by name"},
        {name = "rtx", offset = 66, bits = 1, meaning = "a retransmission"},
        {name = "ts", offset = 67, bits = 1, meaning = "TSETH is present"},
        {name = "inv_res", offset = 68, bits = 4, meaning = "invariant reserved bits"},
        {name = "psn", offset = 72, bits = 24, meaning = "packet sequence number"},
    }},
    METH = {bytes = 4, fields = {
        {name = "rqmsn", offset = 0, bits = 16, meaning = "messages so far that take a receive completion"},
        {name = "msn", offset = 16, bits = 16, meaning = "message sequence number"},
    }},
    TSETH = {bytes = 4, fields = {
        {name = "tx_timestamp", offset = 0, bits = 16, meaning = "when it was sent"},
        {name = "tsr", offset = 16, bits = 1, meaning = "time stamp resolution"},
        {name = "reserved", offset = 17, bits = 11},
        {name = "ftype", offset = 28, bits = 4, names = "tseth_ftype", meaning = "which time stamp this is, 1"},
    }},
    RETH = {bytes = 16, fields = {
        {name = "va", offset = 0, bits = 64, hex = true, meaning = "where this packet's payload goes"},
        {name = "rkey", offset = 64, bits = 32, hex = true, meaning = "key of the memory region"},
        {name = "dma_length", offset = 96, bits = 32, meaning = "bytes of the whole message"},
    }},
    ImmDt = {bytes = 4, fields = {
        {name = "immediate", offset = 0, bits = 32, hex = true, meaning = "handed to the receiver"},
    }},
    AETH = {bytes = 4, fields = {
        {name = "syndrome", offset = 0, bits = 8, names = "syndrome", meaning = "ACK or the reason of a NAK"},
        {name = "msn", offset = 8, bits = 24, meaning = "message acknowledged"},
    }},
    SETH = {bytes = 28, fields = {
        {name = "type", offset = 0, bits = 4},
        {name = "next", offset = 4, bits = 5},
        {name = "m", offset = 9, bits = 2, names = "sack_m", meaning = "what to do with the EV"},
        {name = "reserved", offset = 11, bits = 3},
        {name = "pr", offset = 14, bits = 1, meaning = "answers a reliability probe"},
        {name = "reserved_1", offset = 15, bits = 1},
        {name = "ack_psn_offset", offset = 16, bits = 16, signed = true, meaning = "signed; from cack_psn to the PSN acknowledged"},
        {name = "entropy", offset = 32, bits = 32, hex = true, meaning = "EV of that packet"},
        {name = "spdcid", offset = 64, bits = 16, hex = true, meaning = "source delivery context"},
        {name = "dpdcid", offset = 80, bits = 16, hex = true, meaning = "destination delivery context"},
        {name = "port_state", offset = 96, bits = 8, hex = true, meaning = "printed as reserved; ports of the sender that are down, one bit each"},
        {name = "cack_psn", offset = 104, bits = 24, meaning = "everything up to here has arrived"},
        {name = "cc_type", offset = 128, bits = 4, names = "cc_type", meaning = "which congestion state follows"},
        {name = "cc_flags", offset = 132, bits = 4},
        {name = "mpr", offset = 136, bits = 8, meaning = "receive window in units of 128 PSNs"},
        {name = "sack_offset", offset = 144, bits = 16, signed = true, meaning = "signed; from cack_psn to the first bit of the bitmap"},
        {name = "sack_bitmap", offset = 160, bits = 64, hex = true, meaning = "bit i is the PSN at base + i; the lowest bit comes last on the wire"},
    }},
    CC_STATE = {bytes = 8, fields = {
        {name = "tx_timestamp", offset = 0, bits = 16, meaning = "echo"},
        {name = "reserved", offset = 16, bits = 1},
        {name = "ooo_count", offset = 17, bits = 15, meaning = "packets received above cack_psn"},
        {name = "restore_cwnd", offset = 32, bits = 1},
        {name = "rcv_cwnd_pen", offset = 33, bits = 7, meaning = "receiver's back-pressure"},
        {name = "rcvd_bytes", offset = 40, bits = 24, meaning = "bytes received in units of 256"},
    }},
    NETH = {bytes = 20, fields = {
        {name = "type", offset = 0, bits = 4},
        {name = "next", offset = 4, bits = 5},
        {name = "reserved", offset = 9, bits = 7},
        {name = "reason", offset = 16, bits = 8, names = "nack_reason", meaning = "why"},
        {name = "vendor", offset = 24, bits = 8},
        {name = "entropy", offset = 32, bits = 32, hex = true, meaning = "EV of the packet"},
        {name = "spdcid", offset = 64, bits = 16, hex = true},
        {name = "dpdcid", offset = 80, bits = 16, hex = true},
        {name = "reserved_1", offset = 96, bits = 8},
        {name = "nack_psn", offset = 104, bits = 24, meaning = "the packet"},
        {name = "cc_type", offset = 128, bits = 4, names = "cc_type", meaning = "which congestion state follows, 2"},
        {name = "cc_flags", offset = 132, bits = 4},
        {name = "reserved_2", offset = 136, bits = 8},
        {name = "tx_timestamp", offset = 144, bits = 16, meaning = "echo"},
    }},
    PETH = {bytes = 16, fields = {
        {name = "type", offset = 0, bits = 4},
        {name = "next", offset = 4, bits = 5},
        {name = "reserved", offset = 9, bits = 7},
        {name = "reserved_1", offset = 16, bits = 8},
        {name = "vendor", offset = 24, bits = 8},
        {name = "probe_id", offset = 32, bits = 16, meaning = "echoed by nothing; the SACK with pr answers"},
        {name = "reserved_2", offset = 48, bits = 16},
        {name = "spdcid", offset = 64, bits = 16, hex = true},
        {name = "dpdcid", offset = 80, bits = 16, hex = true},
        {name = "tx_timestamp", offset = 96, bits = 16},
        {name = "tsr", offset = 112, bits = 1},
        {name = "reserved_3", offset = 113, bits = 11},
        {name = "ftype", offset = 124, bits = 4},
    }},
    ERTH = {bytes = 16, fields = {
        {name = "type", offset = 0, bits = 4},
        {name = "next", offset = 4, bits = 5},
        {name = "reserved", offset = 9, bits = 5},
        {name = "op", offset = 14, bits = 2, names = "endpoint_op", meaning = "what is asked"},
        {name = "reserved_1", offset = 16, bits = 8},
        {name = "vendor", offset = 24, bits = 8},
        {name = "port_status_mask", offset = 32, bits = 32, hex = true, meaning = "ports of the sender that are down"},
        {name = "reserved_2", offset = 64, bits = 32},
        {name = "tx_timestamp", offset = 96, bits = 16},
        {name = "tsr", offset = 112, bits = 1},
        {name = "reserved_3", offset = 113, bits = 11},
        {name = "ftype", offset = 124, bits = 4},
    }},
    EETH = {bytes = 36, fields = {
        {name = "type", offset = 0, bits = 4},
        {name = "next", offset = 4, bits = 5},
        {name = "reserved", offset = 9, bits = 1},
        {name = "op", offset = 10, bits = 2, names = "endpoint_op", meaning = "what is answered"},
        {name = "reserved_1", offset = 12, bits = 20},
        {name = "reserved_2", offset = 32, bits = 192},
        {name = "tx_timestamp", offset = 224, bits = 16, meaning = "echo"},
        {name = "reserved_3", offset = 240, bits = 48},
    }},
}
local OPCODES = {
    [0xc6] = {name = "WRITE_FIRST", headers = {"METH", "TSETH", "RETH"}, payload = true},
    [0xc7] = {name = "WRITE_MIDDLE", headers = {"METH", "TSETH", "RETH"}, payload = true},
    [0xc8] = {name = "WRITE_LAST", headers = {"METH", "TSETH", "RETH"}, payload = true},
    [0xc9] = {name = "WRITE_LAST_IMM", headers = {"METH", "TSETH", "RETH", "ImmDt"}, payload = true},
    [0xca] = {name = "WRITE_ONLY", headers = {"METH", "TSETH", "RETH"}, payload = true},
    [0xcb] = {name = "WRITE_ONLY_IMM", headers = {"METH", "TSETH", "RETH", "ImmDt"}, payload = true},
    [0xd1] = {name = "ACK", headers = {"AETH"}, payload = false},
    [0xd8] = {name = "ENDPOINT_REQUEST", headers = {"ERTH"}, payload = false},
    [0xd9] = {name = "ENDPOINT_RESPONSE", headers = {"EETH"}, payload = false},
    [0xdc] = {name = "SACK", headers = {"SETH", "CC_STATE"}, payload = false},
    [0xdd] = {name = "NACK", headers = {"NETH"}, payload = false},
    [0xde] = {name = "PROBE", headers = {"PETH"}, payload = false},
}

local mrc = Proto("mrc", "Multipath Reliable Connection")
mrc.prefs.port = Pref.uint("UDP port", PORT, "UDP destination port of MRC")

local ICRC_BYTES = 4
local integers = {
    unsigned = {ProtoField.uint8, ProtoField.uint16, ProtoField.uint24, ProtoField.uint32, [8] = ProtoField.uint64},
    signed = {ProtoField.int8, ProtoField.int16, ProtoField.int24, ProtoField.int32, [8] = ProtoField.int64},
}

-- A field is read from the whole bytes it touches, through a mask; where no integer is as long, its bytes are shown.
local function proto_field(header, field)
    local first = math.floor(field.offset / 8)
    local count = math.floor((field.offset + field.bits - 1) / 8) - first + 1
    field.first, field.count = first, count
    local filter = "mrc." .. header:lower() .. "." .. field.name
    local make = integers[field.signed and "signed" or "unsigned"][count]
    if not make then
        return ProtoField.bytes(filter, field.name, base.NONE, field.meaning)
    end
    local mask = nil
    if field.bits < 8 * count then
        mask = (2 ^ field.bits - 1) * 2 ^ (8 * (first + count) - field.offset - field.bits)
        mask = math.tointeger and math.tointeger(mask) or mask
    end
    local names = field.names and ENUMERATIONS[field.names] or nil
    return make(filter, field.name, field.hex and base.HEX or base.DEC, names, mask, field.meaning)
end

local fields = {}
for name, header in pairs(HEADERS) do
    for _, field in ipairs(header.fields) do
        field.proto = proto_field(name, field)
        table.insert(fields, field.proto)
    end
end
local ev_field = ProtoField.uint32("mrc.ev", "Entropy value", base.HEX, nil, nil, "From UDP source port and flow label")
local payload_field = ProtoField.bytes("mrc.payload", "Payload")
local length_field = ProtoField.uint32("mrc.payload_length", "Payload bytes")
local pad_field = ProtoField.bytes("mrc.padding", "Padding")
local icrc_field = ProtoField.bytes("mrc.icrc", "ICRC")
for _, field in ipairs({ev_field, payload_field, length_field, pad_field, icrc_field}) do
    table.insert(fields, field)
end
mrc.fields = fields

local unknown = ProtoExpert.new("mrc.unknown_opcode", "Opcode not in the tables", expert.group.PROTOCOL, expert.severity.WARN)
local short = ProtoExpert.new("mrc.short", "Packet ends within its headers", expert.group.MALFORMED, expert.severity.ERROR)
local reserved = ProtoExpert.new("mrc.reserved", "Reserved bits are not 0", expert.group.PROTOCOL, expert.severity.NOTE)
mrc.experts = {unknown, short, reserved}

local flow_label = Field.new("ipv6.flow")

-- Of several IPv6 headers the first is the outermost.
local function entropy(pinfo)
    local labels = {flow_label()}
    local chosen = labels[EV_FLOW_LABEL_IN == "outer" and 1 or #labels]
    if not chosen then
        return nil
    end
    if EV_FLOW_LABEL == "low20" then
        return chosen.value
    end
    return (chosen.value % 65536) * 65536 + pinfo.src_port
end

local function bits(tvb, at, field)
    return tvb(at + field.first, field.count):bitfield(field.offset - 8 * field.first, field.bits)
end

local function is_zero(tvb, at, field)
    if field.count <= 4 then
        return bits(tvb, at, field) == 0
    end
    for i = 0, field.count - 1 do
        if tvb(at + field.first + i, 1):uint() ~= 0 then
            return false
        end
    end
    return true
end

local function add_header(tvb, at, name, tree)
    local header = HEADERS[name]
    local branch = tree:add(mrc, tvb(at, header.bytes), name)
    for _, field in ipairs(header.fields) do
        local item = branch:add(field.proto, tvb(at + field.first, field.count))
        if field.name:find("^reserved") and not is_zero(tvb, at, field) then
            item:add_proto_expert_info(reserved)
        end
    end
end

local function value_of(tvb, name)
    for _, field in ipairs(HEADERS.BTH.fields) do
        if field.name == name then
            return bits(tvb, 0, field)
        end
    end
end

function mrc.dissector(tvb, pinfo, tree)
    local total = tvb:reported_length_remaining()
    if tvb:len() < HEADERS.BTH.bytes then
        return 0
    end
    local number = tvb(0, 1):uint()
    local opcode = OPCODES[number]
    local name = opcode and opcode.name or string.format("opcode 0x%02x", number)
    pinfo.cols.protocol = "MRC"
    pinfo.cols.info = string.format("%s qp 0x%06x psn %d", name, value_of(tvb, "dqp"), value_of(tvb, "psn"))
    local top = tree:add(mrc, tvb(), "MRC, " .. name .. ", reading " .. READING)
    local ev = entropy(pinfo)
    if ev then
        top:add(ev_field, ev):set_generated()
    end
    add_header(tvb, 0, "BTH", top)
    local at = HEADERS.BTH.bytes
    if not opcode then
        top:add_proto_expert_info(unknown)
    else
        for _, header in ipairs(opcode.headers) do
            if header ~= "TSETH" or value_of(tvb, "ts") == 1 then
                if at + HEADERS[header].bytes > math.min(tvb:len(), total - ICRC_BYTES) then
                    top:add_proto_expert_info(short)
                    return tvb:len()
                end
                add_header(tvb, at, header, top)
                at = at + HEADERS[header].bytes
            end
        end
    end
    local pad = value_of(tvb, "pad")
    local stop = total - ICRC_BYTES
    local payload = math.max(0, stop - at - pad)
    if opcode and opcode.payload then
        top:add(length_field, payload):set_generated()
    end
    local captured = math.min(payload, math.max(0, tvb:len() - at))
    if captured > 0 then
        top:add(payload_field, tvb(at, captured))
    end
    if pad > 0 and stop - pad >= at and stop <= tvb:len() then
        top:add(pad_field, tvb(stop - pad, pad))
    end
    if stop >= at and total <= tvb:len() then
        top:add(icrc_field, tvb(stop, ICRC_BYTES))
    end
    return tvb:len()
end

-- RoCEv2 has the same port: what is not MRC goes to whom the port belonged before.
local ports = DissectorTable.get("udp.port")
local before = {}
local taken = nil

local shared = Proto("mrc_port", "MRC, or what else uses its UDP port")
function shared.dissector(tvb, pinfo, tree)
    if tvb:len() >= HEADERS.BTH.bytes and OPCODES[tvb(0, 1):uint()] then
        return mrc.dissector(tvb, pinfo, tree)
    end
    local labels = {flow_label()}
    if #labels > 1 and tvb:len() >= HEADERS.BTH.bytes or not before[taken] then
        return mrc.dissector(tvb, pinfo, tree)
    end
    return before[taken]:call(tvb, pinfo, tree)
end

local function take(port)
    if taken then
        ports:remove(taken, shared)
        if before[taken] then
            ports:add(taken, before[taken])
        end
    end
    taken = port
    if before[port] == nil then
        before[port] = ports:get_dissector(port) or false
    end
    ports:add(port, shared)
end

function mrc.prefs_changed()
    if mrc.prefs.port ~= taken then
        take(mrc.prefs.port)
    end
end

-- Wireshark asks the owner of the lower port first, and an EV's source port may be anybody's: 53 is DNS's. Heuristics
-- come before that where udp.try_heuristic_first is set.
mrc:register_heuristic("udp", function(tvb, pinfo, tree)
    local labels = {flow_label()}
    if pinfo.dst_port ~= taken or #labels < 2 or tvb:len() < HEADERS.BTH.bytes or not OPCODES[tvb(0, 1):uint()] then
        return false
    end
    mrc.dissector(tvb, pinfo, tree)
    return true
end)

take(PORT)
ports:add_for_decode_as(mrc)
