"""Embedded services, all real: started, found and stopped from here."""
